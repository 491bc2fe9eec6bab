"""Evaluate: loss and answers of the base model beside those of the adapter, on the same rows and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.data import EvaluationPrompt
from loracook.errors import TRAIN_AGAIN, DivergedError
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.report.generations import side_by_side
from loracook.stages.base import Consent, Folders
from loracook.stages.metrics import Metric, metric, opened_reasoning

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


READS: tuple[str, ...] = ("evaluate",)
RESUMES = False
OUT_OF_MEMORY = "set evaluate.batch_size: 1 or a smaller evaluate.generation.max_new_tokens"
SIDES = ("base", "adapter")


def after(recipe: Recipe) -> tuple[str, ...]:
    """Evaluation needs the adapter."""
    return ("train",)


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Nothing local beyond what training read."""
    return ()


def describe(recipe: Recipe) -> str:
    """Say what is answered and measured."""
    section = recipe["evaluate"]
    rows = section.get("rows") or 0
    prompts = [
        f"up to {_number(rows, 'evaluation row')}" if rows > 1 else _number(rows, "evaluation row"),
        _number(len(section.get("prompts") or ()), "prompt"),
    ]
    measures = ["loss" if "eval" in recipe["dataset"] else "", *section.get("metrics", [])]
    parts = [" and ".join(filter(None, prompts)), ", ".join(filter(None, measures))]
    return "base model vs adapter: " + "; ".join(filter(None, parts))


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}" if count else ""


def uploads_to(recipe: Recipe) -> str | None:
    """Answers stay on this machine."""
    return None


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Raise MachineError where the package of a metric is not installed."""
    _metrics(recipe)


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Leave `generations.jsonl`, `generations.md` and `metrics.json`, and return the metrics."""
    adapter, metrics = folders.before["train"] / "adapter", _metrics(recipe)
    tokenizer = model.saved_tokenizer(recipe, adapter)
    prompts = data.all_prompts(recipe, tokenizer)
    rows = data.prepare(recipe, tokenizer, folders.cache, progress=progress)
    progress.advance(0, 0, "loading base model and adapter")
    evaluation = Evaluation(recipe, _tuned(recipe, folders, adapter), tokenizer, progress)
    measured: dict[str, Any] = {}
    answers: dict[str, list[model.Generated]] = {}
    for side in SIDES:
        with evaluation.tuned.disable_adapter() if side == "base" else nullcontext():
            measured[side] = evaluation.losses(rows.evaluation, side)
            answers[side] = evaluation.answers(prompts, side)
    both = (dict(zip(SIDES, pair, strict=True)) for pair in zip(*answers.values(), strict=True))
    generations = [
        comparison(tokenizer, prompt, sides, metrics=metrics)
        for prompt, sides in zip(prompts, both, strict=True)
    ]
    for side in SIDES:
        measured[side] |= _means(generations, metrics, side)
    measured["rows"] = _rows(generations, measured, rows.statistics)
    measured["also_trained"] = _also_trained(rows.statistics)
    _write(folders.own, generations, measured)
    return measured


@dataclass(frozen=True)
class Evaluation:
    """A loaded model with its adapter, and how the recipe evaluates it."""

    recipe: Recipe
    tuned: PeftModel
    tokenizer: PreTrainedTokenizerBase
    progress: Progress

    def losses(self, rows: Dataset | None, side: str) -> dict[str, float]:
        """Loss and perplexity on the evaluation rows; empty without any. Raises DivergedError."""
        if rows is None:
            return {}
        loss = model.mean_loss(
            self.tuned,
            rows,
            pad=self.tokenizer.pad_token_id,
            batch_size=self.recipe["evaluate"]["batch_size"],
            on_progress=lambda done: self.progress.advance(done, len(rows), f"{side}: loss"),
        )
        if not math.isfinite(loss):
            advice = TRAIN_AGAIN if side == "adapter" else "write base_model.dtype: bfloat16 or float32"
            raise DivergedError(f"the {side}'s loss on the evaluation rows is {loss}; {advice}")
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

    def answers(self, prompts: Sequence[EvaluationPrompt], side: str) -> list[model.Generated]:
        """The answers to the prompts, in their order."""
        section = self.recipe["evaluate"]
        return model.generate(
            self.tuned,
            self.tokenizer,
            [prompt.prompt_ids for prompt in prompts],
            ends=data.end_ids(self.tokenizer),
            settings=section["generation"],
            batch_size=section["batch_size"],
            seed=section["seed"],
            on_progress=lambda done: self.progress.advance(done, len(prompts), f"{side}: answers"),
        )


def _tuned(recipe: Recipe, folders: Folders, adapter: Path) -> PeftModel:
    from trl.trainer.utils import add_fused_lm_head

    base = model.load_model(recipe, model.fetch(recipe, folders.cache))
    add_fused_lm_head(base)
    return model.load_tuned(recipe, base, adapter)


def _metrics(recipe: Recipe) -> dict[str, Metric]:
    section = recipe["evaluate"]
    return {name: metric(name, section.get("regex")) for name in section.get("metrics", [])}


def comparison(
    tokenizer: PreTrainedTokenizerBase,
    prompt: EvaluationPrompt,
    answers: Mapping[str, model.Generated],
    *,
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """One line of generations.jsonl; where there is a reference to score, it carries both answers' scores."""
    texts = {side: tokenizer.decode(answer.ids[: prompt.limit]) for side, answer in answers.items()}
    cut = [
        side
        for side, answer in answers.items()
        if answer.cut and len(answer.ids) < (prompt.limit or math.inf)
    ]
    line = {"prompt": prompt.prompt, "reference": prompt.reference, **texts, "cut": cut}
    before = opened_reasoning(tokenizer.decode(prompt.prompt_ids))
    scores = {
        name: {side: score(before + text, before + prompt.reference) for side, text in texts.items()}
        for name, score in metrics.items()
        if prompt.reference
    }
    scores = {name: both for name, both in scores.items() if None not in both.values()}
    return line | ({"scores": scores} if scores else {})


def _scores(generations: Sequence[Mapping[str, Any]], name: str, side: str) -> list[float]:
    return [row["scores"][name][side] for row in generations if name in row.get("scores", {})]


def _means(generations: Sequence[Mapping[str, Any]], metrics: Collection[str], side: str) -> dict[str, float]:
    scores = {name: _scores(generations, name, side) for name in metrics}
    return {name: fmean(values) for name, values in scores.items() if values}


def _rows(
    generations: Sequence[Mapping[str, Any]], measured: Mapping[str, Any], statistics: Mapping[str, Any]
) -> dict[str, int]:
    """How many rows are behind each figure."""
    return {
        name: len(_scores(generations, name, "base")) or statistics["rows"]["evaluation"]
        for name in measured["base"]
    }


def _also_trained(statistics: Mapping[str, Any]) -> int | None:
    """How many evaluation rows are training rows, too; None where the training rows were streamed."""
    rows: int = statistics["flaws"]["eval_leak"]["rows"]
    return None if statistics["sample"] else rows


def _write(folder: Path, generations: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in generations]
    (folder / "generations.jsonl").write_text("".join(lines), "utf-8")
    (folder / "generations.md").write_text(side_by_side(generations, measured), "utf-8")
    (folder / "metrics.json").write_text(json.dumps(measured, indent=2) + "\n", "utf-8")
