"""What an evaluation says in the end: each metric of both models, and what got better or worse, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loracook.report.bootstrap import EQUAL, LOWER_IS_BETTER, verdict
from loracook.report.generations import figure, signed, unit


@dataclass(frozen=True)
class Side:
    """A model's value of a metric, with the 95 % interval where there is one."""

    name: str
    value: float
    text: str
    bounds: tuple[float, float] | None


@dataclass(frozen=True)
class Figure:
    """A metric on one set of rows: each model's value, how the adapter differs, and its wins."""

    row_set: str
    metric: str
    sides: Sequence[Side]
    rows: int
    difference: tuple[float, float] | None
    wins: Mapping[str, int]

    @property
    def name(self) -> str:
        """The metric as gates name it: general.loss for one of a further set of rows."""
        return f"{self.row_set}.{self.metric}" if self.row_set else self.metric

    @property
    def verdict(self) -> str:
        """What the interval of the difference says; empty where none is compared."""
        if self.metric == "perplexity":  # the exponential of the loss, which is compared
            return ""
        return verdict(self.metric, self.difference, self.wins)

    @property
    def change(self) -> str:
        """By how much the adapter differs from the base, with the interval."""
        if self.verdict == EQUAL:
            return "no difference"
        base, adapter = self.sides[:2]
        bounds = [signed(self.metric, bound) for bound in self.difference or ()]
        sure = f" (95% interval {bounds[0]} to {bounds[1]})" if bounds else ""
        return f"{signed(self.metric, adapter.value - base.value)}{unit(self.metric)}{sure}"

    @property
    def from_to(self) -> str:
        """Both values and the change between them."""
        base, adapter = self.sides[:2]
        return f"{self.name} {base.text} → {adapter.text}, {self.change}"

    @property
    def range(self) -> tuple[float, float]:
        """What a scale of the values covers."""
        if self.metric not in LOWER_IS_BETTER:
            return 0.0, 1.0
        ends = [bound for side in self.sides for bound in (*(side.bounds or ()), side.value, 0.0)]
        return min(ends), max(ends) or 1.0


def figures(measured: Mapping[str, Any], row_set: str = "") -> Iterator[Figure]:
    """The figures of an evaluation, those of further row sets after its own."""
    others = measured["adapters"]
    for metric in measured["base"]:
        bounds = measured["intervals"].get(metric, {})
        values = {"base": measured["base"], "adapter": measured["adapter"], **others}
        sides = [
            Side(name, of[metric], figure(metric, of[metric]), _pair(bounds.get(name)))
            for name, of in values.items()
            if metric in of
        ]
        wins = {side: measured["wins"].get(metric, {}).get(side, 0) for side in ("adapter", "base", "equal")}
        yield Figure(row_set, metric, sides, measured["rows"][metric], _pair(bounds.get("difference")), wins)
    for name, table in measured.get("also", {}).items():
        yield from figures(table, name)


def sentences(all_figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """What got better, worse, neither or is unclear: the kind of each sentence, and the sentence."""
    by_verdict = {
        kind: [each for each in all_figures if each.verdict == kind]
        for kind in ("better", "worse", "no clear difference", EQUAL)
    }
    better, worse, unclear, equal = by_verdict.values()
    said = [("better", f"Better than the base model: {_changes(better)}.")] if better else []
    said += [("worse", f"Worse than the base model: {_changes(worse)}.")] if worse else []
    if better and not worse:
        said += [("", "Nothing that was measured got worse.")]
    unchanged = {
        "No clear difference from the base model": unclear,
        "Equal to the base model on every row": equal,
    }
    names = {start: ", ".join(each.name for each in some) for start, some in unchanged.items() if some}
    return [*said, *(("", f"{start}: {listed}.") for start, listed in names.items())]


def _changes(some: Sequence[Figure]) -> str:
    return "; ".join(each.from_to for each in some)


def _pair(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return (bounds[0], bounds[1]) if bounds and len(bounds) == 2 else None
