"""Evaluate: loss and answers of the base model beside those of the adapter, on the same rows and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.data import EvaluationPrompt
from loracook.errors import TRAIN_AGAIN, DivergedError, GateError, LoracookError
from loracook.evaluation.comparison import ADAPTER, BASE, RowScores, compared, indistinct, with_perplexity
from loracook.evaluation.gates import unmet
from loracook.evaluation.metrics import Metric, metric, opened_reasoning
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.report.generations import side_by_side
from loracook.stages.base import Consent, Folders
from loracook.store.record import RECORD, read_metrics

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


READS: tuple[str, ...] = ("evaluate",)
RESUMES = False
OUT_OF_MEMORY = "set evaluate.batch_size: 1 or a smaller evaluate.generation.max_new_tokens"
SIDES = (BASE, ADAPTER)


def after(recipe: Recipe) -> tuple[str, ...]:
    """Evaluation needs the adapter."""
    return ("train",)


def files(recipe: Recipe) -> tuple[Path, ...]:
    """The files of further rows; training read the others."""
    return data.further_files(recipe)


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
    rows = data.prepare(recipe, tokenizer, folders.cache, progress=progress)
    own = data.RowSet(rows.evaluation, data.all_prompts(recipe, tokenizer), tuple(section.get("metrics", ())))
    sets = {"": own, **data.further_row_sets(recipe, tokenizer, folders.cache, progress=progress)}
    progress.advance(0, 0, "loading base model and adapter")
    evaluation = Evaluation(recipe, _tuned(recipe, folders, adapter), tokenizer, progress)
    seen: dict[str, dict[str, Seen]] = {}
    for side in SIDES:
        with evaluation.tuned.disable_adapter() if side == BASE else nullcontext():
            seen[side] = {name: evaluation.of(row_set, side) for name, row_set in sets.items()}
    tables, generations = {}, []
    for name, row_set in sets.items():
        of_set = {side: each[name] for side, each in seen.items()}
        answers = [
            dict(zip(of_set, each, strict=True))
            for each in zip(*(side.answers for side in of_set.values()), strict=True)
        ]
        metrics = _metrics(recipe, row_set.metrics)
        lines = [
            comparison(tokenizer, prompt, each, metrics=metrics)
            for prompt, each in zip(row_set.prompts, answers, strict=True)
        ]
        tables[name] = figures(of_set, lines, row_set.metrics)
        generations += [{**line, "set": name} for line in lines]
    measured = tables.pop("") | {
        "also": tables,
        "also_trained": _also_trained(rows.statistics),
        "notes": list(indistinct(seen)),
    }
    _write(folders.own, generations, measured)
    _write_lines(folders.own / "losses.jsonl", losses_by_row(seen))
    return measured


@dataclass(frozen=True)
class Seen:
    """What was seen of one model: the losses of rows, and the answers to prompts."""

    losses: Sequence[model.RowLoss]
    answers: Sequence[model.Generated]


@dataclass(frozen=True)
class Evaluation:
    """A loaded model with its adapter, and how the recipe evaluates it."""

    recipe: Recipe
    tuned: PeftModel
    tokenizer: PreTrainedTokenizerBase
    progress: Progress

    def of(self, row_set: data.RowSet, side: str) -> Seen:
        """What the model, as it is now, makes of rows and prompts; raises DivergedError."""
        losses = [] if row_set.rows is None else self._losses(row_set.rows, side)
        return Seen(losses, self.answers(row_set.prompts, side))

    def _losses(self, rows: Dataset, side: str) -> list[model.RowLoss]:
        losses = model.row_losses(
            self.tuned,
            rows,
            pad=self.tokenizer.pad_token_id,
            batch_size=self.recipe["evaluate"]["batch_size"],
            on_progress=lambda done: self.progress.advance(done, len(rows), f"{side}: loss"),
        )
        if wrong := [row.mean for row in losses if not math.isfinite(row.mean)]:
            advice = "write base_model.dtype: bfloat16 or float32" if side == BASE else TRAIN_AGAIN
            raise DivergedError(f"the {side}'s loss on the evaluation rows is {wrong[0]}; {advice}")
        return losses

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

    base = model.load_model(recipe, model.fetch(recipe, folders.cache), recipe["evaluate"].get("dtype"))
    add_fused_lm_head(base)
    return model.load_tuned(recipe, base, adapter)


def _metrics(recipe: Recipe, names: Iterable[str]) -> dict[str, Metric]:
    return {name: metric(name, recipe["evaluate"].get("regex")) for name in names}


def comparison(
    tokenizer: PreTrainedTokenizerBase,
    prompt: EvaluationPrompt,
    answers: Mapping[str, model.Generated],
    *,
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """One line of generations.jsonl; where there is a reference to score, it carries the answers' scores."""
    texts = {side: tokenizer.decode(answer.ids[: prompt.limit]) for side, answer in answers.items()}
    cut = [
        side
        for side, answer in answers.items()
        if answer.cut and len(answer.ids) < (prompt.limit or math.inf)
    ]
    tokens = {side: len(answer.ids) for side, answer in answers.items()}
    line = {"prompt": prompt.prompt, "reference": prompt.reference, **texts, "cut": cut, "tokens": tokens}
    before = opened_reasoning(tokenizer.decode(prompt.prompt_ids))
    scores = {
        name: {side: score(before + text, before + prompt.reference) for side, text in texts.items()}
        for name, score in metrics.items()
        if prompt.reference
    }
    scores = {name: values for name, values in scores.items() if None not in values.values()}
    return line | ({"scores": scores} if scores else {})


def figures(
    seen: Mapping[str, Seen], generations: Sequence[Mapping[str, Any]], metrics: Collection[str]
) -> dict[str, Any]:
    """What `compared` says of the losses and metrics, and how the answers of each model ended."""
    losses = {side: [row.mean for row in each.losses] for side, each in seen.items()}
    tokens = [row.tokens for row in seen[BASE].losses]
    scores = {"loss": RowScores(losses, tokens)} if tokens else {}
    for name in metrics:
        scored = [row["scores"][name] for row in generations if name in row.get("scores", {})]
        if scored:
            scores[name] = RowScores({side: [row[side] for row in scored] for side in seen})
    return with_perplexity(compared(scores)) | {
        "ended": {side: _mean(side not in row["cut"] for row in generations) for side in seen},
        "answer_tokens": {side: _mean(row["tokens"][side] for row in generations) for side in seen},
    }


def losses_by_row(seen: Mapping[str, Mapping[str, Seen]]) -> Iterator[dict[str, Any]]:
    """The loss of each row by model, in the order of the rows; `seen` has each model's row sets by name."""
    for name, first in seen[BASE].items():
        losses = {side: [row.mean for row in sets[name].losses] for side, sets in seen.items()}
        for number, row in enumerate(first.losses):
            means = {side: each[number] for side, each in losses.items()}
            yield {"set": name, "row": row.row, "tokens": row.tokens, **means}


def _mean(values: Iterable[float]) -> float | None:
    each = list(values)
    return fmean(each) if each else None


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
