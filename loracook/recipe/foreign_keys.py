"""Keys and values of other tools, and what they are called here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loracook.errors import Path, dotted, quote, spell

Translate = Callable[[Any], tuple[str, Any]]
PRECISIONS = {"fp16": True, "bf16": True, "no": False, "fp32": False, "false": False}
OTHER_VALUES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
    "disabled": "eager",
    "adam": "adamw_torch",
    "adamw": "adamw_torch",
    "adamw_hf": "adamw_torch",
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chat": "messages",
    "chat_template": "messages",
    "completion": "prompt_completion",
}
"""Values of other tools, and ours that means the same."""


def _listed(value: Any) -> Any:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _targets(value: Any) -> tuple[str, Any]:
    return "lora.target_modules", "all-linear" if value in ("all", "all-linear", ["all"]) else _listed(value)


def _dtype(value: Any) -> Any:
    text = str(value).removeprefix("torch.")
    return OTHER_VALUES.get(text, text)


def _held_out(value: Any) -> tuple[str, Any]:
    if value in (0, "0"):
        return "dataset", None
    rows = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return ("dataset.eval.rows" if rows else "dataset.eval.fraction"), value


def _bits(value: Any) -> tuple[str, Any]:
    if value in (16, 32):
        return "quantization", None
    return f"quantization.load_in_{8 if value == 8 else 4}bit", True if value in (4, 8) else None


def _loss(value: Any) -> tuple[str, Any]:
    return "template.loss", {"True": "all", "False": "assistant"}.get(str(value))


def _precision(value: Any) -> tuple[str, Any]:
    return ("train.fp16" if value == "fp16" else "train.bf16"), PRECISIONS.get(str(value).lower())


def _to(path: str, convert: Callable[[Any], Any]) -> Translate:
    return lambda value: (path, convert(value))


def _switched(path: str, meaning: str) -> Translate:
    """A switch of another tool that is a value here; where it is off, the key is left out."""
    off = path.partition(".")[0]
    return lambda value: (off, None) if value is False else (path, meaning if value is True else None)


def _loss_on(meaning: str) -> Translate:
    return lambda value: ("template.loss", meaning if value is True else None)


TRANSLATED: dict[str, Translate] = {
    "targets": _targets,
    "lora_target": _targets,
    "lora_target_modules": _targets,
    "lora_target_linear": _switched("lora.target_modules", "all-linear"),
    "lora_modules_to_save": _to("lora.modules_to_save", _listed),
    "additional_target": _to("lora.modules_to_save", _listed),
    "torch_dtype": _to("base_model.dtype", _dtype),
    "model_dtype": _to("base_model.dtype", _dtype),
    "compute_dtype": _to("quantization.bnb_4bit_compute_dtype", _dtype),
    "flash_attn": _to("base_model.attn_implementation", lambda value: OTHER_VALUES.get(str(value), value)),
    "flash_attention": _switched("base_model.attn_implementation", "flash_attention_2"),
    "use_flash_attention_2": _switched("base_model.attn_implementation", "flash_attention_2"),
    "sdp_attention": _switched("base_model.attn_implementation", "sdpa"),
    "eager_attention": _switched("base_model.attn_implementation", "eager"),
    "datasets": _to("dataset.sources", lambda value: None),
    "val_size": _held_out,
    "val_set_size": _held_out,
    "train_on_inputs": _loss,
    "train_on_prompt": _loss,
    "assistant_only_loss": _loss_on("assistant"),
    "completion_only_loss": _loss_on("completion"),
    "mask_history": _loss_on("last_turn"),
    "bits": _bits,
    "quantization_bit": _bits,
    **{f"load_in_{bits}bit": _to("quantization.load_in_4bit", lambda value: None) for bits in (2, 3, 5, 6)},
    "optimizer": _to("train.optim", lambda value: OTHER_VALUES.get(str(value).lower(), value)),
    "group_by_length": _switched("train.train_sampling_strategy", "group_by_length"),
    "length_grouped_batches": _switched("train.train_sampling_strategy", "group_by_length"),
    "mixed_precision": _precision,
}


@dataclass(frozen=True)
class Translation:
    """Our path and value for another tool's key; a value of None is the user's to choose.

    A path of one part says that the key can be left out.
    """

    path: Path
    value: Any = None

    def advice(self, here: Path) -> str:
        """What to write instead of the key of the mapping at `here`."""
        *section, key = self.path
        if not section:
            return "remove it; leaving it out has the same effect"
        written = key if self.value is None else f"{key}: {spell(self.value)}"
        place = "" if tuple(section) == here else f" under '{dotted(tuple(section))}:'"
        return f"use {quote(written)}{place}"


OTHER_NAMES = {
    "lora.r": "adapter_r rank lora_r lora_rank",
    "lora.lora_alpha": "alpha",
    "lora.lora_dropout": "dropout",
    "lora.fan_in_fan_out": "lora_fan_in_fan_out",
    "lora.layers_to_transform": "lora_layers_to_transform",
    "lora.task_type": "lora_task_type",
    "lora.init_lora_weights": "lora_init_weights",
    "lora.use_dora": "peft_use_dora dora",
    "lora.use_rslora": "peft_use_rslora rslora",
    "base_model.name_or_path": (
        "model model_id model_name model_name_or_path model_path pretrained_model_name_or_path"
    ),
    "base_model.revision": "model_revision",
    "tokenizer.name_or_path": (
        "tokenizer_config tokenizer_id tokenizer_name tokenizer_name_or_path tokenizer_path"
    ),
    "dataset.path": "dataset_name dataset_path",
    "dataset.name": "dataset_config",
    "dataset.split": "dataset_train_split",
    "dataset.eval.split": "dataset_test_split",
    "dataset.streaming": "dataset_streaming",
    "dataset.data_files": "train_file train_files",
    "dataset.eval.data_files": "validation_file eval_file",
    "dataset.rows": "max_samples max_train_samples",
    "dataset.eval.rows": "max_eval_samples",
    "dataset.shuffle": "shuffle_dataset",
    "dataset.limits.missing_eos": "without_stop",
    "template.system": "system_prompt default_system",
    "quantization.load_in_4bit": "use_4bit load_4bit",
    "quantization.load_in_8bit": "use_8bit load_8bit",
    "quantization.bnb_4bit_quant_type": "quant_type",
    "quantization.bnb_4bit_use_double_quant": (
        "double_quant double_quantization use_nested_quant use_bnb_nested_quant"
    ),
    "train.learning_rate": "lr",
    "train.num_train_epochs": "epochs num_epochs n_epochs max_epochs",
    "train.max_steps": "steps num_steps num_train_steps max_train_steps",
    "train.per_device_train_batch_size": (
        "batch_size micro_batch_size train_batch_size per_device_batch_size "
        "per_gpu_train_batch_size device_train_microbatch_size"
    ),
    "train.per_device_eval_batch_size": "eval_batch_size",
    "train.gradient_accumulation_steps": (
        "gradient_accumulation grad_accum grad_accum_steps accumulate_grad_batches"
    ),
    "train.max_length": (
        "sequence_len sequence_length seq_length seq_len "
        "cutoff_len max_seq_len max_seq_length model_max_length block_size"
    ),
    "train.packing": "sample_packing",
    "train.eval_packing": "eval_sample_packing",
    "train.lr_scheduler_type": "scheduler lr_scheduler lr_schedule",
    "train.warmup_steps": "warmup warmup_ratio lr_warmup_steps num_warmup_steps",
    "train.activation_checkpointing": "gradient_checkpointing",
    "train.activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "train.max_grad_norm": "gradient_clipping max_norm clip_grad_norm",
    "train.eval_strategy": "evaluation_strategy",
    "train.load_best_model_at_end": "load_best load_best_model save_best",
    "train.early_stopping.early_stopping_patience": "early_stopping patience",
    "train.seed": "random_seed",
    "train.neftune_noise_alpha": "neftune_alpha noise_alpha",
    "train.project": "wandb_project",
    "train.run_name": "wandb_run_name",
    "evaluate.generation.max_new_tokens": "max_new_token max_tokens",
    "push.repo_id": "hub_model_id repo repository",
    "push.private": "hub_private_repo",
    "push.revision": "hub_revision",
}
OUR_PATHS = {name: path for path, names in OTHER_NAMES.items() for name in names.split()}


def translate(name: str, value: Any) -> Translation | None:
    """Our path and value for another tool's key, None when it is not in the tables above."""
    if name in TRANSLATED:
        path, value = TRANSLATED[name](value)
    elif name in OUR_PATHS:
        path = OUR_PATHS[name]
    else:
        return None
    return Translation(tuple(path.split(".")), value)
