"""How far answers depend on the batch: a few prompts are asked again in another one, and scored again.

Sums in half precision round differently with the size of a batch and its padding, and a greedy answer changes
where two tokens are nearly as likely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from loracook import data
from loracook.evaluation.answers import comparison
from loracook.evaluation.comparison import ADAPTER
from loracook.evaluation.measure import Evaluation, Seen
from loracook.evaluation.metrics import Metric

MOST, SHARE = 8, 5
"""How many of the adapter's answers are repeated: one in five at most, a tenth of both models'."""
FIRST, AGAIN = "first", "again"


def other_batch(
    evaluation: Evaluation, row_set: data.RowSet, seen: Seen, *, metrics: Mapping[str, Metric]
) -> dict[str, Any] | None:
    """How many of the adapter's answers are the same in another batch, and each metric of both; None where
    they do not depend on it, or are too few.
    """
    section, dtype = evaluation.recipe["evaluate"], str(evaluation.tuned.dtype).removeprefix("torch.")
    prompts = row_set.prompts
    chosen = _spread([len(prompt.prompt_ids) for prompt in prompts], min(MOST, len(prompts) // SHARE))
    drawn = section["generation"].get("do_sample")  # by a random number for each row of a batch
    if dtype == "float32" or section["batch_size"] == 1 or drawn or len(chosen) < 2:
        return None
    with evaluation.using(ADAPTER):
        again = evaluation.answers([prompts[number] for number in chosen], ADAPTER)
    lines = [
        comparison(
            evaluation.tokenizer,
            prompts[number],
            {FIRST: seen.answers[number], AGAIN: answer},
            metrics=metrics,
        )
        for number, answer in zip(chosen, again, strict=True)
    ]
    return {
        "rows": len(lines),
        "same": sum(line[FIRST] == line[AGAIN] for line in lines),
        "batch_size": section["batch_size"],
        "dtype": dtype,
        "metrics": {name: values for name in metrics if (values := _means(lines, name))},
    }


def _spread(lengths: Sequence[int], count: int) -> list[int]:
    """Some numbers out of all lengths: each batch was made of neighbours in length."""
    order = sorted(range(len(lengths)), key=lambda number: lengths[number])
    return order[:: len(order) // count][:count] if count else []


def _means(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    scored = [line["scores"][metric] for line in lines if metric in line.get("scores", {})]
    return {side: fmean(each[side] for each in scored) for side in (FIRST, AGAIN)} if scored else {}
