"""Answers to the same prompts side by side, and the figures that follow from them and from the losses."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.data import EvaluationPrompt
from loracook.evaluation.comparison import BASE, RowScores, compared, with_perplexity
from loracook.evaluation.measure import Seen
from loracook.evaluation.metrics import Metric, opened_reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def lines(
    tokenizer: PreTrainedTokenizerBase,
    row_set: data.RowSet,
    seen: Mapping[str, Seen],
    *,
    metrics: Mapping[str, Metric],
) -> Iterator[dict[str, Any]]:
    """The lines of generations.jsonl of a row set, with the answers of each model."""
    for number, prompt in enumerate(row_set.prompts):
        answers = {side: each.answers[number] for side, each in seen.items()}
        yield comparison(tokenizer, prompt, answers, metrics=metrics)


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
        "ended": {side: _mean(not answer.cut for answer in each.answers) for side, each in seen.items()},
        "answer_tokens": {
            side: _mean(len(answer.ids) for answer in each.answers) for side, each in seen.items()
        },
    }


def losses_by_row(seen: Mapping[str, Mapping[str, Seen]]) -> Iterator[dict[str, Any]]:
    """The loss of each row by model, in the order of the rows; `seen` has each model's row sets by name."""
    for name, first in seen[BASE].items():
        losses = {side: [row.mean for row in sets[name].losses] for side, sets in seen.items()}
        for number, row in enumerate(first.losses):
            means = {side: each[number] for side, each in losses.items()}
            yield {**means, "set": name, "row": row.row, "tokens": row.tokens}


def _mean(values: Iterable[float]) -> float | None:
    each = list(values)
    return fmean(each) if each else None
