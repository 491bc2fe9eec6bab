"""For every key: a recipe in which it matters, and another value for it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from loracook.recipe.schema import all_keys
from loracook.recipe.schema_errors import check

ABSENT = object()
KEYS = {".".join(map(str, path)): part for path, part in all_keys() if "properties" not in part}
SOURCE = "dataset.sources.0."
NUDGES = (True, False, 1, 2, 3, 0.5, "a")
BASE = {
    "version": 1,
    "name": "soup",
    "base_model": {"name_or_path": "./llama"},
    "dataset": {"path": "./chat.jsonl", "eval": {"rows": 2}},
    "template": {"chat_template": "chatml"},
    "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
    "train": {"max_steps": 1, "max_length": 96, "save_strategy": "no"},
}
ANY = dict.fromkeys(("truncated", "missing_eos", "fully_masked", "duplicates", "eval_leak"), 1)
"""Limits that let everything pass."""
HUB = {"dataset.path": "org/rows"}
ASKED = {"dataset.path": "./asked.jsonl"}
TREES = {"dataset.path": "./trees.jsonl", "dataset.format": "oasst"}
SPOKEN = {"dataset.path": "./spoken.jsonl", "dataset.map_roles": {"cook": "assistant", "guest": "user"}}
SAMPLED = {"evaluate.generation": {"do_sample": True, "max_new_tokens": 4}, "evaluate.prompts": ["soup"]}
ANSWERED = {
    "evaluate.rows": 2,
    "evaluate.generation": {"max_new_tokens": 4},
    "evaluate.metrics": ["exact_match"],
}

TASK = {
    "task": "soups",
    "dataset_path": "./asked.jsonl",
    "doc_to_text": "{{question}}",
    "doc_to_target": "answer",
}
CHOICE = TASK | {"output_type": "multiple_choice", "doc_to_target": "0", "doc_to_choice": ["soup", "stew"]}
ASKS, ANSWERS = {"role": "user", "content": "{question}"}, {"role": "assistant", "content": "{answer}"}
STARTS = {"role": "system", "content": "You cook."}
POLYNOMIAL = {"train.lr_scheduler_type": "polynomial"}
MINIMUM = {"train.lr_scheduler_kwargs": {"min_lr_rate": 0.2}}
STABLE = {
    "train.lr_scheduler_type": "warmup_stable_decay",
    "train.lr_scheduler_kwargs": {"num_decay_steps": 3},
}
GREEDY = {"train.lr_scheduler_type": "greedy", "train.eval_strategy": "steps"}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "num_cycles": {"train.lr_scheduler_type": "cosine"},
    "min_lr": {
        "train.lr_scheduler_type": "cosine_with_min_lr",
        "train.lr_scheduler_kwargs": {"min_lr": 1e-6},
    },
    "min_lr_rate": {"train.lr_scheduler_type": "cosine_with_min_lr"} | MINIMUM,
    "warmup_lr_rate": {"train.lr_scheduler_type": "cosine_warmup_with_min_lr"} | MINIMUM,
    **dict.fromkeys(("lr_end", "power"), POLYNOMIAL),
    "timescale": {"train.lr_scheduler_type": "inverse_sqrt"},
    **dict.fromkeys(
        ("num_decay_steps", "num_stable_steps", "min_lr_ratio", "warmup_type", "decay_type"), STABLE
    ),
    **dict.fromkeys(("factor", "patience", "threshold", "threshold_mode", "cooldown", "eps"), GREEDY),
    **dict.fromkeys(("max_lr", "warmup", "smooth", "window_size", "reset_start"), GREEDY),
}
"""What makes a scheduler that takes each setting."""
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")

CONTEXT: dict[str, dict[str, Any]] = {
    "description": {"push.folder": "published"},
    "base_model.revision": {"base_model.name_or_path": "org/model"},
    "base_model.gguf_file": {"base_model.name_or_path": "org/model"},
    "dataset.name": HUB,
    "dataset.split": HUB,
    "dataset.data_files": {"dataset.path": "./more"},
    "dataset.revision": HUB,
    "dataset.format": {
        "dataset.path": "./both.jsonl", "template.chat_template": "none", "dataset.format": "text",
    },
    "dataset.columns": ASKED | {"dataset.columns": {"prompt": "question", "completion": "answer"}},
    "dataset.map_roles": SPOKEN,
    "dataset.threads": TREES,
    "dataset.sources": {"dataset.path": ABSENT, "dataset.sources": [{"path": "./chat.jsonl"}]},
    "dataset.mix": {
        "dataset.path": ABSENT, "dataset.sources": [{"path": "./chat.jsonl"}, {"path": "./more/a.jsonl"}],
    },
    "dataset.on_bad_row": {"dataset.path": "./bad.jsonl", "dataset.on_bad_row": "skip"},
    "dataset.eval.split": HUB | {"dataset.eval": {"split": "validation"}},
    "dataset.eval.path": {"dataset.eval": {"path": "./more/a.jsonl"}},
    "dataset.eval.name": HUB | {"dataset.eval": {"split": "validation"}},
    "dataset.eval.data_files": {"dataset.eval": {"path": "./more"}},
    "dataset.eval.revision": HUB | {"dataset.eval": {"split": "validation"}},
    "dataset.eval.fraction": {"dataset.eval": {"fraction": 0.2}},
    "dataset.limits": {"dataset.limits": ANY},
    "dataset.limits.truncated": {"train.max_length": 32},
    "dataset.limits.missing_eos": {"train.max_length": 32},
    "dataset.limits.fully_masked": {"dataset.path": "./long.jsonl"},
    "dataset.limits.duplicates": {"dataset.path": "./twice.jsonl"},
    "dataset.limits.eval_leak": {"dataset.eval": {"path": "./copy.jsonl"}},
    "template.prompt": ASKED | {"template.prompt": "{question}", "template.completion": "{answer}"},
    "template.completion": ASKED | {"template.prompt": "{question}", "template.completion": "{answer}"},
    "template.messages": ASKED | {"template.messages": [ASKS, ANSWERS]},
    "template.messages.0.role": {"template.messages": [STARTS, ASKS, ANSWERS]},
    "quantization": {"quantization.load_in_4bit": True},
    "quantization.load_in_4bit": {"quantization": ABSENT},
    "quantization.load_in_8bit": {"quantization": ABSENT},
    "quantization.llm_int8_threshold": {"quantization": {"load_in_8bit": True}},
    "quantization.llm_int8_has_fp16_weight": {"quantization": {"load_in_8bit": True}},
    "quantization.llm_int8_enable_fp32_cpu_offload": {"quantization": {"load_in_8bit": True}},
    "lora.layers_pattern": {"lora.layers_to_transform": [0]},
    "lora.use_bdlora.nblocks": {"lora.use_bdlora.target_modules_bd_a": ["q_proj"]},
    "lora.use_bdlora.match_strict": {"lora.use_bdlora.target_modules_bd_a": ["q_proj"]},
    "lora.loraplus.loraplus_lr_embedding": {
        "lora.loraplus": {"loraplus_lr_ratio": 16}, "lora.target_modules": ["embed_tokens", "q_proj"],
    },
    **{f"train.lr_scheduler_kwargs.{key}": needed for key, needed in SCHEDULERS.items()},
    "train.dataloader_prefetch_factor": {"train.dataloader_num_workers": 1},
    "train.dataloader_persistent_workers": {"train.dataloader_num_workers": 1},
    "train.dataloader_multiprocessing_context": {"train.dataloader_num_workers": 1},
    "train.eval_steps": {"train.eval_strategy": "steps"},
    "train.eval_delay": {"train.eval_strategy": "steps"},
    "train.eval_on_start": {"train.eval_strategy": "steps"},
    "train.load_best_model_at_end": {"train.eval_strategy": "epoch", "train.save_strategy": "epoch"},
    "train.eval_packing": {"train.packing": True},
    "train.padding_free": {"train.packing": True},
    "train.packing_strategy": {"train.packing": True, "train.max_length": 48},
    "train.fp16": {"train.bf16": False},
    "train.torch_compile_backend": {"train.torch_compile": True},
    "train.torch_compile_mode": {"train.torch_compile": True},
    "train.early_stopping": {
        "train.eval_strategy": "epoch", "train.save_strategy": "epoch", "train.load_best_model_at_end": True,
    },
    "evaluate": ANSWERED,
    "evaluate.also": {"evaluate.also": {"more": {"path": "./more/a.jsonl"}}},
    "evaluate.seed": SAMPLED,
    "evaluate.regex": {"evaluate.metrics": ["regex"], "evaluate.regex": "^"},
    "evaluate.metrics": {"evaluate.metrics": ["contains"]},
    **{f"evaluate.generation.{key}": {"evaluate.generation.do_sample": True} for key in SAMPLING},
    "evaluate.generation.early_stopping": {"evaluate.generation.num_beams": 2},
    "evaluate.generation.length_penalty": {"evaluate.generation.num_beams": 2},
    "lm_eval": {"lm_eval.tasks": [TASK]},
    "lm_eval.tasks.0.doc_to_choice": {"lm_eval.tasks": [CHOICE]},
    "lm_eval.fewshot_as_multiturn": {"lm_eval.apply_chat_template": True, "lm_eval.num_fewshot": 2},
    "merge": {"merge": {}},
    "merge.base": {"quantization.load_in_4bit": True},
    "push": {"push.repo_id": "me/soup"},
    "push.commit_message": {"push.create_pr": True},
    "push.folder": {"push.folder": "published", "push.repo_id": ABSENT},
    "export": {"merge": {}, "export": {}},
    "push.what": {"merge": {}},
}  # fmt: skip
"""What else a recipe needs to say for a key to matter; the entry of a key holds for those below it."""
CHANGED: dict[str, Any] = {
    "base_model.name_or_path": "./phi",
    "base_model.attn_implementation": "eager",
    "dataset.path": "./more/a.jsonl",
    "dataset.format": "prompt_completion",
    "dataset.sources": [{"path": "./more/a.jsonl"}],
    "dataset.data_files": "a.jsonl",
    "dataset.columns": {"prompt": "answer", "completion": "question"},
    "dataset.map_roles": {"cook": "user", "guest": "assistant"},
    "dataset.where": {"lang": "en"},
    "dataset.rows": 6,
    "dataset.eval.path": "./more/b.jsonl",
    "dataset.eval.data_files": "a.jsonl",
    "dataset.eval.rows": 1,
    "dataset.eval.fraction": 0.5,
    **{f"dataset.limits.{name}": 0 for name in ANY},
    "template.chat_template": "plain",
    "template.messages": [STARTS, ASKS, ANSWERS],
    "template.messages.0.content": "And {question}?",
    "template.messages.0.role": "assistant",
    "template.loss": "all",
    "quantization.llm_int8_threshold": 4.5,
    "quantization.bnb_4bit_quant_storage": "bfloat16",
    "train.max_length": 48,
    "train.torch_compile_backend": "eager",
    "train.warmup_steps": 0.5,
    "train.tf32": False,
    "train.bf16": False,
    "evaluate.rows": 1,
    "evaluate.also": {"more": {"path": "./more/a.jsonl", "rows": 1}},
    "evaluate.regex": "soup",
    "lm_eval.tasks": [TASK | {"task": "stews"}],
    "lm_eval.tasks.0.dataset_path": "./few.jsonl",
    "lm_eval.limit": 2,
    "lm_eval.bootstrap_iters": 0,
    "merge.max_shard_size": "10KB",
    "merge.dtype": "float32",
    "push.revision": "next",
}
"""Values to change to, where no example of the schema will do."""


def prefixes(key: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    names = key.split(".")
    return [".".join(names[: count + 1]) for count in range(len(names))]


def context(key: str) -> dict[str, Any]:
    """What the recipe must say beside the base; a source needs what a data set with its key does."""
    if not key.startswith(SOURCE):
        return {at: value for prefix in prefixes(key) for at, value in CONTEXT.get(prefix, {}).items()}
    inner = context(key.replace(SOURCE, "dataset."))
    moved = {at.replace("dataset.", SOURCE) if at.startswith("dataset.") else at: inner[at] for at in inner}
    return {"dataset.path": ABSENT, "dataset.sources": [{"path": "./chat.jsonl"}]} | moved


def changed(sections: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with other values at dotted paths; ABSENT takes one away."""
    recipe: dict[str, Any] = deepcopy(dict(sections))
    for key, value in changes.items():
        *names, last = key.split(".")
        inner: Any = recipe
        for name in names:
            inner = inner[int(name)] if name.isdigit() else inner.setdefault(name, {})
        if value is ABSENT:
            inner.pop(last, None)
        else:
            inner[last] = deepcopy(value)
    return recipe


def another(key: str, sections: Mapping[str, Any]) -> Any:
    """A valid value that the key does not have now."""
    part, name = KEYS[key], key.replace(SOURCE, "dataset.")
    if name in CHANGED:
        return CHANGED[name]
    now = _value(key, sections, part.get("default"))
    for value in [*part["examples"], *part.get("enum", ()), *NUDGES]:
        if value != now and not list(check(value, part, ())):
            return value
    raise LookupError(f"no other value for {key}; write one into CHANGED")


def _value(key: str, sections: Any, default: Any) -> Any:
    for name in key.split("."):
        if isinstance(sections, list):
            sections = sections[int(name)]
        elif name in sections:
            sections = sections[name]
        else:
            return default
    return sections
