"""Gates: what a recipe requires of an evaluation before anything is merged, exported or pushed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loracook.errors import Problem
from loracook.recipe.recipe import Recipe
from loracook.report.generations import figure

Meets = Callable[[float, float, float], bool]
CONDITIONS: dict[str, tuple[Meets, str]] = {
    "at_least": (lambda value, base, bound: value >= bound, "not at least {bound}"),
    "at_most": (lambda value, base, bound: value <= bound, "not at most {bound}"),
    "above_base_by": (lambda value, base, bound: value >= base + bound, "not {bound} above {base}"),
    "below_base_by": (lambda value, base, bound: value <= base - bound, "not {bound} below {base}"),
    "not_below_base": (lambda value, base, bound: value >= base, "below {base}"),
    "not_above_base": (lambda value, base, bound: value <= base, "above {base}"),
}
"""Whether a value meets a condition, given the base model's value and the bound, and else what it is."""


@dataclass(frozen=True)
class Gate:
    """One condition on one metric, and what is wrong; nothing where it is met."""

    metric: str
    condition: str
    bound: float
    fault: str

    @property
    def words(self) -> str:
        """What is required, in words."""
        name = self.metric.rpartition(".")[2]
        bound = "" if self.bound is True else f" {figure(name, self.bound)}"
        return f"{self.condition.replace('_', ' ')}{bound}"


def checked(require: Mapping[str, Mapping[str, Any]], measured: Mapping[str, Any]) -> Iterator[Gate]:
    """The gates of `evaluate.require`, held against the metrics of an evaluation."""
    for name, conditions in require.items():
        found = values_of(measured, name)
        for condition, bound in conditions.items():
            yield Gate(name, condition, bound, _fault((name, condition), bound, found))


def unmet(recipe: Recipe, measured: Mapping[str, Any]) -> Iterator[Problem]:
    """The gates of `evaluate.require` that the metrics of an evaluation do not meet."""
    for gate in checked(recipe["evaluate"].get("require", {}), measured):
        if gate.fault:
            yield recipe.problem(("evaluate", "require", gate.metric, gate.condition), gate.fault)


def _fault(gate: tuple[str, str], bound: float, found: tuple[float, float] | None) -> str:
    if found is None:
        return "no row could be measured; give rows that have an answer"
    (value, base), (name, condition) = found, gate
    metric, (meets, otherwise) = name.rpartition(".")[2], CONDITIONS[condition]
    if meets(value, base, bound):
        return ""
    shown = {"bound": figure(metric, bound), "base": f"the base's {figure(metric, base)}"}
    return f"{figure(metric, value)} is {otherwise.format(**shown)}"


def values_of(measured: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The adapter's and the base model's value of a metric, or of one of a further row set: general.loss."""
    rows, _, metric = name.rpartition(".")
    figures = measured["also"].get(rows, {}) if rows else measured
    if metric in figures.get("adapter", {}):
        return figures["adapter"][metric], figures["base"][metric]
    return None
