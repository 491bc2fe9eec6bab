"""Evaluate: loss and answers of the base model beside those of the adapter, on the same rows and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.model.unsupported import check_prompts
from loracook.progress import Progress
from loracook.report.generations import side_by_side
from loracook.stages import metrics
from loracook.stages.base import Consent, Folders
from loracook.stages.metrics import Metric

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe

READS: tuple[str, ...] = ("evaluate",)
SIDES = ("base", "adapter")


def after(recipe: Recipe) -> tuple[str, ...]:
    """There must be an adapter to evaluate."""
    return ("train",)


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Nothing local beyond what training read."""
    return ()


def describe(recipe: Recipe) -> str:
    """Say what is answered and measured."""
    section = recipe["evaluate"]
    asked = [
        f"{section['rows']} evaluation rows" if section.get("rows") else "",
        f"{len(section['prompts'])} prompts" if section.get("prompts") else "",
    ]
    measured = ["loss" if "eval" in recipe["dataset"] else "", *section.get("metrics", [])]
    parts = [" and ".join(filter(None, asked)), ", ".join(filter(None, measured))]
    return "base beside adapter: " + "; ".join(filter(None, parts))


def before_training(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel) -> None:
    """Return when there will be something to ask, room to answer in, and something to measure it with.

    Raises:
        RecipeError: no row has a prompt, or one is too long for the `base` model, which may have no weights.
        MachineError: the package of a metric is not installed.
    """
    if "evaluate" in recipe:
        _scores(recipe)
        check_prompts(base, recipe, max((len(row.ids) for row in _asked(recipe, tokenizer)), default=0))


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Leave `generations.jsonl`, `generations.md` and `metrics.json`, and return the metrics."""
    from transformers import AutoTokenizer

    adapter = folders.before["train"] / "adapter"
    scores = _scores(recipe)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    rows = _asked(recipe, tokenizer)
    evaluation = data.prepare(recipe, tokenizer, folders.cache, progress=progress).evaluation
    tuned = _tuned(recipe, folders, adapter)
    measured: dict[str, Any] = {}
    answers: dict[str, list[str]] = {}
    for side in SIDES:
        with tuned.disable_adapter() if side == "base" else nullcontext():
            measured[side] = _losses(recipe, tuned, evaluation, tokenizer, side, progress)
            answers[side] = _answers(recipe, tuned, tokenizer, rows, side, progress)
    generations = [
        _generation(row, dict(zip(SIDES, texts, strict=True)), scores)
        for row, *texts in zip(rows, *answers.values(), strict=True)
    ]
    for side in SIDES:
        measured[side] |= _means(generations, side)
    measured["rows"] = sum("scores" in row for row in generations)
    _write(folders.own, generations, measured)
    return measured


def _tuned(recipe: Recipe, folders: Folders, adapter: Path) -> PeftModel:
    from trl.trainer.utils import add_fused_lm_head

    base = model.load_model(recipe, model.fetch(recipe, folders.cache))
    add_fused_lm_head(base)
    return model.load_tuned(base, adapter)


def _scores(recipe: Recipe) -> dict[str, Metric]:
    section = recipe["evaluate"]
    return {name: metrics.metric(name, section.get("regex")) for name in section.get("metrics", [])}


@dataclass(frozen=True)
class Asked:
    """A prompt, its token ids, and the answer it should get; None where the recipe gives the prompt alone."""

    prompt: Any
    ids: Sequence[int]
    reference: str | None = None


def _asked(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[Asked]:
    section = recipe["evaluate"]
    rows = data.evaluation_prompts(recipe, tokenizer, section["rows"]) if section.get("rows") else []
    return [
        *(Asked(row.prompt, row.prompt_ids, row.reference) for row in rows),
        *(Asked(text, data.prompt_ids(recipe, tokenizer, text)) for text in section.get("prompts", [])),
    ]


def _losses(
    recipe: Recipe,
    tuned: PeftModel,
    rows: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    side: str,
    progress: Progress,
) -> dict[str, float]:
    if rows is None:
        return {}
    loss = model.mean_loss(
        tuned,
        rows,
        pad=tokenizer.pad_token_id,
        batch_size=recipe["evaluate"]["batch_size"],
        measured=lambda done: progress.advance(done, len(rows), f"{side}: loss"),
    )
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def _answers(
    recipe: Recipe,
    tuned: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Asked],
    side: str,
    progress: Progress,
) -> list[str]:
    section = recipe["evaluate"]
    return model.generate(
        tuned,
        tokenizer,
        [row.ids for row in rows],
        settings=section["generation"],
        batch_size=section["batch_size"],
        seed=section["seed"],
        answered=lambda done: progress.advance(done, len(rows), f"{side}: answers"),
    )


def _generation(row: Asked, answers: Mapping[str, str], scores: Mapping[str, Metric]) -> dict[str, Any]:
    """One line of generations.jsonl; rows with a reference carry the scores of both answers."""
    written = {"prompt": row.prompt, "reference": row.reference, **answers}
    if row.reference is None or not scores:
        return written
    found = {
        name: {side: score(answer, row.reference) for side, answer in answers.items()}
        for name, score in scores.items()
    }
    return {**written, "scores": found}


def _means(generations: Sequence[Mapping[str, Any]], side: str) -> dict[str, float]:
    scored = [row["scores"] for row in generations if "scores" in row]
    return {name: fmean(row[name][side] for row in scored) for name in (scored[0] if scored else ())}


def _write(folder: Path, generations: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in generations]
    (folder / "generations.jsonl").write_text("".join(lines), "utf-8")
    (folder / "generations.md").write_text(side_by_side(generations, measured), "utf-8")
    (folder / "metrics.json").write_text(json.dumps(measured, indent=2) + "\n", "utf-8")
