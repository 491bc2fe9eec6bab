"""Where a key's value ends up, as something that can be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

import loracook
from loracook import data, model
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe
from loracook.report.card import model_card
from loracook.stages import STAGES
from loracook.stages.base import Consent, Folders
from loracook.training import compiled
from loracook.training.trainer import sft_config, trainer
from tests.hub.server import TOKEN, serving

CHATS = [
    {
        "lang": "en" if n % 2 else "de",
        "messages": [
            {"role": "user", "content": f"soup {n}"},
            {"role": "assistant", "content": "yes, " * n + "a"},
        ],
    }
    for n in range(1, 13)
]
TREE = {
    "message_tree_id": "1",
    "tree_state": "ready_for_export",
    "prompt": {
        "text": "soup",
        "role": "prompter",
        "replies": [
            {"text": text, "role": "assistant", "rank": rank} for rank, text in enumerate(("yes", "no"))
        ],
    },
}


def write_data(root: Path) -> None:
    (root / "more").mkdir()
    asked = [{"question": f"what is {n}", "answer": f"soup {n}"} for n in range(6)]
    both = [{"prompt": f"what is {n}?", "completion": " soup", "text": f"soup {n}"} for n in range(6)]
    spoken = [
        {"conversations": [{"from": "guest", "value": f"soup {n}"}, {"from": "cook", "value": "yes"}]}
        for n in range(6)
    ]
    long = {"messages": [{"role": "user", "content": "soup " * 50}, {"role": "assistant", "content": "yes"}]}
    files = {
        "chat": CHATS, "copy": CHATS, "twice": CHATS * 2, "more/a": CHATS[3:7], "more/b": CHATS[5:],
        "asked": asked, "few": asked[:3], "spoken": spoken, "both": both, "trees": [TREE] * 4, "long": [*CHATS, long],
        "bad": [*CHATS, {"messages": []}],
    }  # fmt: skip
    for name, rows in files.items():
        lines = [json.dumps(row) + "\n" for row in rows]
        (root / f"{name}.jsonl").write_text("".join(lines), "utf-8")


@dataclass(frozen=True)
class Kitchen:
    """A folder of tiny models and data, what a whole run of the base recipe left, and a place to work."""

    root: Path
    done: Mapping[str, Path]
    own: Path


@dataclass
class Said:
    """A progress that remembers."""

    lines: list[Any] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Remember a sentence."""
        self.lines.append(text)

    def advance(self, done: int, total: int, text: str) -> None:
        """Remember how far it is."""
        self.lines.append((done, total))


def _plan(kitchen: Kitchen, recipe: Recipe) -> Any:
    return str(loracook.plan(recipe, kitchen.own).folder.relative_to(kitchen.own))


def _stages(kitchen: Kitchen, recipe: Recipe) -> Any:
    return [stage.summary for stage in loracook.plan(recipe, kitchen.own).stages]


def _card(kitchen: Kitchen, recipe: Recipe) -> Any:
    return model_card(recipe, name="soup", files=(), metrics={}, versions={})


def _weights(kitchen: Kitchen, recipe: Recipe) -> Any:
    loaded = model.load_model(recipe, model.fetch(recipe, kitchen.own))
    return loaded.config.to_dict(), loaded.config._attn_implementation, str(loaded.dtype)


def _download(kitchen: Kitchen, recipe: Recipe) -> Any:
    """What the hub is asked for; a model that is not there ends it."""
    asked: list[Any] = []

    def ask(*arguments: Any, **named: Any) -> str:
        asked.append((arguments, named))
        return str(kitchen.root / "llama")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", ask)
        try:
            model.fetch(recipe, kitchen.own)
        except OSError as error:  # the GGUF file that was not downloaded
            asked.append(error.filename)
    return asked


def _tokenizer(kitchen: Kitchen, recipe: Recipe) -> Any:
    tokenizer = model.load_tokenizer(recipe, kitchen.root / "llama")
    return tokenizer.special_tokens_map, tokenizer.all_special_tokens


def _rows(kitchen: Kitchen, recipe: Recipe) -> Any:
    """The token rows that the trainer gets, and what the hub was asked for."""
    asked: list[Any] = []

    def ask(*arguments: Any, streaming: bool = False, **named: Any) -> Any:
        asked.append((arguments, streaming, named))
        return datasets.Dataset.from_list(CHATS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.load_dataset", ask)
        tokenizer = data.with_template(recipe, model.load_tokenizer(recipe, kitchen.root / "llama"))
        prepared = data.prepare(recipe, tokenizer, kitchen.own, progress=Silent())
    parts = [(type(part), list(part)) for part in (prepared.train, prepared.evaluation) if part is not None]
    return parts, [json.dumps(one) for one in asked]


def _trainer(kitchen: Kitchen, recipe: Recipe) -> Any:
    """What a trainer is handed beside its arguments: the callbacks and the optimizer's groups."""
    made = trainer(recipe, kitchen.own, cache=kitchen.own, progress=Silent())
    groups = made.optimizer.param_groups if made.optimizer else []
    rates = [(group["lr"], len(group["params"])) for group in groups]
    return rates, [vars(callback) for callback in made.callback_handler.callbacks if vars(callback)]


def _arguments(kitchen: Kitchen, recipe: Recipe) -> Any:
    return sft_config(recipe, Path("out")).to_dict()


def _adapter(kitchen: Kitchen, recipe: Recipe) -> Any:
    return sorted(model.lora_config(recipe).to_dict().items(), key=str)


def _generation(kitchen: Kitchen, recipe: Recipe) -> Any:
    """The settings that reach the model's generate."""
    asked: list[Any] = []

    def answer(input_ids: Any, generation_config: Any, **others: Any) -> Any:
        asked.append(generation_config.to_dict())
        return input_ids

    causal = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=0), device="cpu", generate=answer)
    tokenizer = model.load_tokenizer(recipe, kitchen.root / "llama")
    settings = recipe["evaluate"]["generation"]
    model.generate(
        *(causal, tokenizer, [[1, 2]]),
        ends={2},
        settings=settings,
        batch_size=1,
        seed=0,
        on_progress=lambda count: None,
    )
    return asked


def _stage(kitchen: Kitchen, recipe: Recipe, name: str) -> Any:
    """What a stage returns, says on its way, and leaves."""
    said = Said()
    folders = Folders(kitchen.own, kitchen.done, kitchen.own.parent, kitchen.root / "cache")
    result = STAGES[name].run(recipe, folders, consent=Consent(push=True), progress=said)
    return result, said.lines, sorted(path.name for path in kitchen.own.rglob("*"))


def _evaluate(kitchen: Kitchen, recipe: Recipe) -> Any:
    return _stage(kitchen, recipe, "evaluate"), (kitchen.own / "generations.jsonl").read_text("utf-8")


def _lm_eval(kitchen: Kitchen, recipe: Recipe) -> Any:
    """What lm-evaluation-harness asks a model, and what comes of its answers."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM

    from loracook.evaluation.harness import evaluate, load_tasks

    asked: list[Any] = []

    class Asked(LM):
        tokenizer_name = "tiny"

        def loglikelihood(self, requests: Any) -> Any:
            asked.extend(each.args for each in requests)
            return [(float(len(each.args[1])), False) for each in requests]

        def generate_until(self, requests: Any) -> Any:
            asked.extend(each.args for each in requests)
            return ["soup 2"] * len(requests)

        loglikelihood_rolling = generate_until

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return json.dumps([chat_history, add_generation_prompt])

    return evaluate(recipe, Asked(), load_tasks(recipe)), asked


def _lm_eval_batch(kitchen: Kitchen, recipe: Recipe) -> Any:
    """How many texts a model is asked at once."""
    pytest.importorskip("lm_eval")
    from loracook.evaluation.harness import language_model

    causal = model.load_model(recipe, kitchen.root / "llama")
    tokenizer = model.load_tokenizer(recipe, kitchen.root / "llama")
    return language_model(causal, tokenizer, recipe["lm_eval"]["batch_size"]).batch_size


def _merge(kitchen: Kitchen, recipe: Recipe) -> Any:
    """What merging returns and leaves, and how PEFT was asked to."""
    from peft.tuners.tuners_utils import BaseTuner

    asked, merge = [], BaseTuner.merge_and_unload

    def ask(tuner: Any, *arguments: Any, **named: Any) -> Any:
        asked.append((arguments, named))
        return merge(tuner, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseTuner, "merge_and_unload", ask)
        return _stage(kitchen, recipe, "merge"), asked


def _push(kitchen: Kitchen, recipe: Recipe) -> Any:
    """What a hub holds after the push, or the folder."""
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        place = {key: _stage(kitchen, recipe, "push")[0].get(key) for key in ("repo_id", "folder")}
        found = {name: _repository(one) for name, one in hub.repositories.items()}
    return place, found


def _repository(one: Any) -> Any:
    branches = {branch: sorted(one.files(branch)) for branch in one.branches}
    return one.private, branches, one.pull_requests


EFFECTS: dict[str, Callable[[Kitchen, Recipe], Any]] = {
    "name": _plan,
    "description": _card,
    "base_model": _weights,
    "base_model.revision": _download,
    "base_model.gguf_file": _download,
    "tokenizer": _tokenizer,
    "dataset": _rows,
    "dataset.limits": _trainer,
    "template": _rows,
    "quantization": _weights,
    "lora": _adapter,
    "lora.loraplus": _trainer,
    "train": _arguments,
    **dict.fromkeys(
        [f"train.{key}" for key in ("max_length", "packing", "packing_strategy", "eval_packing", "seed")],
        _rows,
    ),
    "train.early_stopping": _trainer,
    **dict.fromkeys([f"train.{key}" for key in compiled.KEYS], lambda _, recipe: compiled.settings(recipe)),
    "evaluate": _evaluate,
    "evaluate.generation": _generation,
    "lm_eval": _lm_eval,
    "lm_eval.batch_size": _lm_eval_batch,
    "merge": _merge,
    "export": _stages,
    "push": _push,
}
"""Where a key's value ends up; the entry of a key holds for those below it that have none."""
