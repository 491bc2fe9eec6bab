"""The shipped recipes on tiny twins: a random model of the same architecture, rows alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loracook.recipe.recipe import Recipe, load
from tests.tiny_models import LINES, write_twin

RECIPES = Path(__file__).parent.parent / "recipes"
TWO_STEPS = {
    "num_train_epochs": None,
    "warmup_steps": 0,
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "max_length": 64,
    "logging_steps": 1,
}


def twin(shipped: str, folder: Path, **sections: Any) -> Recipe:
    """The shipped recipe of that name, loaded on its tiny twin in `folder` with `sections` changed."""
    return load(twin_file(shipped, folder, **sections))


def twin_file(shipped: str, folder: Path, **sections: Any) -> Path:
    """The file of such a recipe; it extends the shipped one, which stands unchanged beside it."""
    model_type, dataset = TWINS[shipped]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(RECIPES, folder / "shipped", dirs_exist_ok=True)
    write_twin(folder / "model", model_type)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(shipped)), "utf-8")
    own = {
        "base_model": {"name_or_path": "./model"},
        "dataset": dataset,
        "train": TWO_STEPS | STEPS.get(shipped, {}),
    }
    return write_recipe(folder / "recipe.yaml", f"./shipped/{shipped}.yaml", own, sections)


def write_recipe(file: Path, parent: str, *layers: Mapping[str, Any]) -> Path:
    """A recipe that extends `parent` with the layers' sections, the later ones first in rank."""
    sections: dict[str, Any] = {}
    for layer in layers:
        for name, section in layer.items():
            known = sections.get(name)
            sections[name] = (
                {**known, **section} if isinstance(known, dict) and isinstance(section, dict) else section
            )
    file.write_text(json.dumps({"version": 1, "extends": parent, **sections}, indent=1), "utf-8")
    return file


def rows_of(shipped: str) -> list[dict[str, Any]]:
    """Rows in the format of the data set that the shipped recipe names."""
    if shipped == "phi2-oasst":
        return list(oasst_messages(12))
    if shipped == "gpt-neo-1.3b-lora":
        return [
            {"instruction": "Say it.", "context": line, "response": line[:20], "category": "closed_qa"}
            for line in LINES * 25
        ]
    column = "text" if shipped == "falcon-7b-lora" else "quote"
    return [{column: f"{number}. {line}"} for number, line in enumerate(LINES * 40)]


def oasst_messages(trees: int) -> Iterable[dict[str, Any]]:
    """Flat messages as the hub's OpenAssistant/oasst1 has them: ranked replies, one answered once more."""
    for tree in range(trees):
        line = LINES[tree % len(LINES)]
        turns = [
            ("q", None, "prompter", f"{tree}: why?", None),
            ("a", "q", "assistant", line[:40], 0),
            ("b", "q", "assistant", line[20:50], 1),
            ("r", "a", "prompter", "And then?", 0),
            ("s", "r", "assistant", line[10:30], 0),
        ]
        for name, parent, role, text, rank in turns:
            yield {
                "message_id": f"{tree}-{name}",
                "parent_id": parent and f"{tree}-{parent}",
                "message_tree_id": f"{tree}-q",
                "text": text,
                "role": role,
                "lang": "en",
                "rank": rank,
                "deleted": False,
                "review_result": True,
                "tree_state": "ready_for_export",
            }


STEPS: dict[str, dict[str, Any]] = {
    "phi2-oasst": {"eval_steps": 1},
    "falcon-7b-lora": {"num_train_epochs": 1},
    "gpt-neox-20b-qlora": {"num_train_epochs": 1},
    "llama2-7b-8bit": {"report_to": "none"},
}
"""What else of training has to differ on a twin; null would remove a key that those recipes do not have."""

ALIKE = dict.fromkeys(("truncated", "missing_eos", "fully_masked", "duplicates", "eval_leak"), 1.0)
"""Rows that are all alike and blocks too short for them are what a twin is tried on."""

TWINS: dict[str, tuple[str, dict[str, Any]]] = {
    "phi2-oasst": ("phi", {"path": "./rows.jsonl", "eval": {"split": None, "rows": 6}, "limits": ALIKE}),
    "opt-350m-lora": ("opt", {"path": "./rows.jsonl", "eval": {"rows": 6}, "limits": ALIKE}),
    "gpt-neo-1.3b-lora": ("gpt_neo", {"path": "./rows.jsonl", "limits": ALIKE}),
    "falcon-7b-lora": (
        "falcon",
        {"path": "./rows.jsonl", "eval": {"split": None, "rows": 6}, "limits": ALIKE},
    ),
    "gpt-neox-20b-qlora": ("gpt_neox", {"path": "./rows.jsonl", "limits": ALIKE}),
    "quickstart": (
        "llama",
        {
            "path": "./shipped/data/orders-train.jsonl",
            "eval": {"path": "./shipped/data/orders-eval.jsonl"},
            "limits": ALIKE,
        },
    ),
    "llama2-7b-8bit": (
        "llama",
        {
            "path": "./shipped/data/kitchen-train.json",
            "eval": {"path": "./shipped/data/kitchen-validation.json"},
            "limits": ALIKE,
        },
    ),
}
"""Each shipped recipe's architecture, and its dataset section with rows of this machine."""
