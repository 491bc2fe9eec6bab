"""Evaluate: loss and answers of the base model beside those of the adapter, on the same rows and seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loracook import data, model
from loracook.errors import GateError, LoracookError
from loracook.evaluation.answers import figures, lines, losses_by_row
from loracook.evaluation.comparison import ADAPTER, indistinct
from loracook.evaluation.gates import unmet
from loracook.evaluation.measure import Evaluation, Seen, tuned
from loracook.evaluation.metrics import Metric, metric
from loracook.evaluation.other_batch import other_batch
from loracook.progress import Progress
from loracook.recipe.derived import first_rows
from loracook.recipe.recipe import Recipe
from loracook.report.generations import side_by_side
from loracook.stages.base import Consent, Folders
from loracook.store.record import RECORD, read_metrics

READS: tuple[str, ...] = ("evaluate",)
RESUMES = False
OUT_OF_MEMORY = "set evaluate.batch_size: 1 or a smaller evaluate.generation.max_new_tokens"


def after(recipe: Recipe) -> tuple[str, ...]:
    """Evaluation needs the adapter."""
    return ("train",)


def files(recipe: Recipe) -> tuple[Path, ...]:
    """The files of further rows and other adapters; training read the others."""
    others = [model.other_adapter(recipe, name) for name in recipe["evaluate"].get("adapters", ())]
    return (*data.further_files(recipe), *itertools.chain.from_iterable(others))


def describe(recipe: Recipe) -> str:
    """Say what is answered and measured, of which models."""
    section = recipe["evaluate"]
    rows = section.get("rows") or 0
    prompts = [
        f"up to {_number(rows, 'evaluation row')}" if rows > 1 else _number(rows, "evaluation row"),
        _number(len(section.get("prompts") or ()), "prompt"),
    ]
    measures = ["loss" if "eval" in recipe["dataset"] else "", *section.get("metrics", [])]
    further = ", ".join(section.get("also", {}))
    parts = [
        " and ".join(filter(None, prompts)),
        ", ".join(filter(None, measures)),
        f"also on {further}" if further else "",
    ]
    adapters = ", ".join(["adapter", *section.get("adapters", ())])
    return f"base model vs {adapters}: " + "; ".join(filter(None, parts))


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}" if count else ""


def uploads_to(recipe: Recipe) -> str | None:
    """Answers stay on this machine."""
    return None


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Raise MachineError where the package of a metric is not installed."""
    section = recipe["evaluate"]
    for scored in (section, *section.get("also", {}).values()):
        _metrics(recipe, scored.get("metrics", ()))


def accept(recipe: Recipe, folder: Path) -> None:
    """Raise GateError for the gates of `evaluate.require` that are not met."""
    if "require" not in recipe["evaluate"]:
        return
    if not (folder / RECORD).exists():
        raise LoracookError("evaluate.require is checked by evaluate, which is not done; run without --only")
    if faults := list(unmet(recipe, read_metrics(folder))):
        raise GateError(faults)


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Leave `generations.jsonl`, `generations.md`, `losses.jsonl` and `metrics.json`; return the metrics."""
    adapter, section = folders.before["train"] / "adapter", recipe["evaluate"]
    tokenizer = model.saved_tokenizer(recipe, adapter)
    first = first_rows(recipe.sections)
    rows = data.prepare(recipe, tokenizer, folders.cache, progress=progress, first=first)
    own = data.RowSet(rows.evaluation, data.all_prompts(recipe, tokenizer), tuple(section.get("metrics", ())))
    sets = {"": own, **data.further_row_sets(recipe, tokenizer, folders.cache, progress=progress)}
    progress.advance(0, 0, "loading base model and adapter")
    evaluation = Evaluation(recipe, tuned(recipe, folders.cache, adapter), tokenizer, progress)
    seen: dict[str, dict[str, Seen]] = {}
    for side in evaluation.sides:
        with evaluation.using(side):
            seen[side] = {name: evaluation.of(row_set, side) for name, row_set in sets.items()}
    tables, generations = {}, []
    for name, row_set in sets.items():
        of_set = {side: each[name] for side, each in seen.items()}
        metrics = _metrics(recipe, row_set.metrics)
        answered = list(lines(tokenizer, row_set, of_set, metrics=metrics))
        tables[name] = figures(of_set, answered, metrics)
        generations += [{**line, "set": name} for line in answered]
    measured: dict[str, Any] = tables.pop("") | {
        "also": tables,
        "also_trained": _also_trained(rows.statistics),
        "notes": list(indistinct(seen)),
        "other_batch": other_batch(evaluation, own, seen[ADAPTER][""], metrics=_metrics(recipe, own.metrics)),
    }
    _write(folders.own, generations, measured)
    _write_lines(folders.own / "losses.jsonl", losses_by_row(seen))
    return measured


def _metrics(recipe: Recipe, names: Iterable[str]) -> dict[str, Metric]:
    return {name: metric(name, recipe["evaluate"].get("regex")) for name in names}


def _also_trained(statistics: Mapping[str, Any]) -> int | None:
    """How many evaluation rows are training rows, too; None where the training rows were streamed."""
    rows: int = statistics["flaws"]["eval_leak"]["rows"]
    return None if statistics["sample"] else rows


def _write(folder: Path, generations: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> None:
    _write_lines(folder / "generations.jsonl", generations)
    (folder / "generations.md").write_text(side_by_side(generations, measured), "utf-8")
    (folder / "metrics.json").write_text(json.dumps(measured, indent=2) + "\n", "utf-8")


def _write_lines(file: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), "utf-8")
