"""What rows say of a base model and its adapters: means, their intervals, and who does better on how many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loracook.report.bootstrap import LOWER_IS_BETTER, interval

BASE, ADAPTER = "base", "adapter"
LARGEST = 700.0
"""A loss whose exponential a float can still hold."""


@dataclass(frozen=True)
class RowScores:
    """A metric's value of each row by model; in a mean, rows have `weights`: the tokens of a loss."""

    values: Mapping[str, Sequence[float]]
    weights: Sequence[float] | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.values[BASE])

    def mean(self, side: str) -> float:
        """The mean of one model."""
        weights = self.weights or [1.0] * self.rows
        products = (value * weight for value, weight in zip(self.values[side], weights, strict=True))
        return math.fsum(products) / math.fsum(weights)

    def intervals(self) -> dict[str, list[float]]:
        """The interval of each mean, and of the adapter's difference from the base; {} for one row."""
        both = zip(self.values[ADAPTER], self.values[BASE], strict=True)
        values = {**self.values, "difference": [ours - theirs for ours, theirs in both]}
        found = {name: interval(each, self.weights) for name, each in values.items()}
        return {name: list(each) for name, each in found.items() if each}

    def wins(self, metric: str) -> dict[str, int]:
        """On how many rows the adapter does better than the base, the base better, or both alike."""
        pairs = list(zip(self.values[ADAPTER], self.values[BASE], strict=True))
        above = sum(ours > theirs for ours, theirs in pairs)
        below = sum(ours < theirs for ours, theirs in pairs)
        better, worse = (below, above) if metric in LOWER_IS_BETTER else (above, below)
        return {ADAPTER: better, BASE: worse, "equal": len(pairs) - better - worse}


def compared(scores: Mapping[str, RowScores]) -> dict[str, Any]:
    """The figures of all metrics, as the record states them: each model's means, rows, intervals and wins."""
    sides = next(iter(scores.values())).values if scores else {}
    means = {side: {name: each.mean(side) for name, each in scores.items()} for side in sides}
    return {
        BASE: means.pop(BASE, {}),
        ADAPTER: means.pop(ADAPTER, {}),
        "adapters": means,
        "rows": {name: each.rows for name, each in scores.items()},
        "intervals": {name: found for name, each in scores.items() if (found := each.intervals())},
        "wins": {name: each.wins(name) for name, each in scores.items()},
    }


def with_perplexity(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures with a perplexity for every loss in them."""
    for means in (figures[BASE], figures[ADAPTER], *figures["adapters"].values()):
        if "loss" in means:
            means["perplexity"] = _exp(means["loss"])
    for table in (figures["rows"], figures["wins"]):
        if "loss" in table:
            table["perplexity"] = table["loss"]
    if of_loss := figures["intervals"].get("loss"):
        sides = {name: bounds for name, bounds in of_loss.items() if name != "difference"}
        figures["intervals"]["perplexity"] = {name: [*map(_exp, bounds)] for name, bounds in sides.items()}
    return figures


def indistinct(measured: Mapping[str, object]) -> Iterator[str]:
    """A sentence for every two models that did exactly the same: one of them is not what it is called.

    `measured` has, by model, all that was measured, down to the losses of rows and the tokens of answers.
    """
    names = list(measured)
    for number, name in enumerate(names):
        for other in names[:number]:
            if measured[name] == measured[other]:
                nothing = "; it changes nothing" if other == BASE else ""
                yield f"'{name}' gives exactly the losses and answers of '{other}'{nothing}"


def _exp(loss: float) -> float:
    return math.exp(min(loss, LARGEST))
