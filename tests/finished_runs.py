"""Run folders as finished runs leave them, made without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loracook.store.record import write_record
from loracook.store.run_folder import LATEST
from tests.records import record

LENGTHS = {
    "median": 20,
    "p95": 60,
    "longest": 90,
    "limit": 64,
    "histogram": {"edges": [0, 30, 60, 90], "rows": [9, 6, 1]},
}
FLAWS = {
    name: {"rows": rows, "share": rows / 16, "worst": []}
    for name, rows in {
        "truncated": 2,
        "missing_eos": 2,
        "fully_masked": 1,
        "duplicates": 0,
        "eval_leak": 0,
    }.items()
}
SOURCE = {
    "path": "./rows.jsonl", "format": "columns", "use": "train", "used_rows": 16,
    "skipped": {"no answer": {"rows": 3, "first": ["rows.jsonl row 3"]}},
}  # fmt: skip
STATISTICS = {
    "rows": {"train": 16, "evaluation": 4}, "evaluation_dropped": 1, "tokens": 400, "trained_tokens": 100,
    "trained_share": 0.25, "lengths": LENGTHS, "flaws": FLAWS, "sources": [SOURCE],
}  # fmt: skip
TRAINED: dict[str, Any] = {
    "steps": 4, "parameters": {"trainable": 10, "all": 1000}, "base_commit": None, "resumed_from": "checkpoint-2",
    "memory": {
        "planned_bytes": 3 << 30, "probed_bytes": None, "measured_bytes": 2 << 30, "seconds_for_batch": 0.5,
        "device": {"name": "this machine's CPU", "kind": "cpu", "bytes": 16 << 30},
    },
    "metrics": {"train_runtime": 61.5}, "settings": {"train": {"gradient_accumulation_steps": 2}, "lora": {}},
    "data": {
        "digest": "d1", "statistics": STATISTICS,
        "first_row": [["masked", "Which soup? "], ["trained", "Leek.</s>"]],
    },
}  # fmt: skip
MEASURED: dict[str, Any] = {
    "base": {"loss": 2.5, "exact_match": 0.5, "perplexity": 12.18},
    "adapter": {"loss": 0.5, "exact_match": 0.25, "perplexity": 1.649},
    "rows": {"loss": 4, "exact_match": 4, "perplexity": 4},
    "intervals": {
        "loss": {"base": [2.4, 2.6], "adapter": [0.4, 0.6], "difference": [-2.1, -1.9]},
        "exact_match": {"base": [0.25, 0.75], "adapter": [0.0, 0.5], "difference": [-0.5, -0.01]},
    },
    "wins": {
        "loss": {"adapter": 4, "base": 0, "equal": 0},
        "exact_match": {"adapter": 0, "base": 1, "equal": 3},
        "perplexity": {"adapter": 4, "base": 0, "equal": 0},
    },
    "ended": {"base": 0.5, "adapter": 1.0}, "answer_tokens": {"base": 40.0, "adapter": 9.5},
    "adapters": {}, "also": {}, "also_trained": 0, "notes": [],
}  # fmt: skip
ANSWERS = (
    {"prompt": "Hello", "reference": None, "base": "", "adapter": "Hi there", "cut": []},
    {
        "prompt": "Which soup?", "reference": "Leek soup.", "base": "Leek soup.", "adapter": "Pea soup.",
        "cut": [], "scores": {"exact_match": {"base": 1.0, "adapter": 0.0}},
    },
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Bread?"}],
        "reference": "Rye.", "base": "Well, bread is", "adapter": "Rye.", "cut": ["base"],
        "scores": {"exact_match": {"base": 0.0, "adapter": 1.0}}, "set": "bakery",
    },
)  # fmt: skip
LOG = (
    {"loss": 3.0, "grad_norm": 2.0, "learning_rate": 0.1, "tokens_per_second": 50.0, "memory_bytes": 1 << 30, "step": 1},
    {"loss": 2.0, "grad_norm": 1.5, "learning_rate": 0.2, "tokens_per_second": 60.0, "memory_bytes": 2 << 30, "step": 2},
    {"eval_loss": 2.2, "step": 2},
    {"loss": 1.0, "grad_norm": 1.0, "learning_rate": 0.1, "tokens_per_second": 55.0, "memory_bytes": 2 << 30, "step": 4},
)  # fmt: skip
SECTIONS = {"lora": {"r": 8}, "train": {"learning_rate": 0.2}}
ORIGINS = {"lora.r": "soup.yaml:3", "train.learning_rate": "--set"}


def finished_run(
    runs: Path,
    *,
    name: str = "soup",
    answers: Sequence[Mapping[str, Any]] = ANSWERS,
    measured: Mapping[str, Any] = MEASURED,
    evaluate: Mapping[str, Any] | None = None,
    **trained: Any,
) -> Path:
    """The folder of a run that trained and evaluated; `trained` are facts of the record of training."""
    run = runs / name
    train, evaluation = run / "train-00000000", run / "evaluate-00000001"
    for folder in (train, evaluation, run / LATEST):
        folder.mkdir(parents=True)
    _write_lines(train / "log.jsonl", LOG)
    _write_lines(evaluation / "generations.jsonl", answers)
    facts = {
        "sections": SECTIONS,
        "origins": ORIGINS,
        "result": TRAINED,
        "recipe": "soup.yaml",
        "notes": ["4 rows skipped"],
        "versions": {"torch": "2.13.0"},
        "seconds": 62.0,
        "digest": "00000000",
    }
    write_record(train, record(**{"name": name, **facts, **trained}))
    section = {"evaluate": evaluate or {"rows": 4}}
    write_record(evaluation, record(
        stage="evaluate", name=name, sections=section, result=dict(measured), digest="00000001",
        before={train.name: {}},
    ))  # fmt: skip
    for folder in (train, evaluation):
        (run / LATEST / folder.name.rpartition("-")[0]).symlink_to(Path("..") / folder.name)
    return run


def _write_lines(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
