"""Gates: what a recipe requires of an evaluation before anything is merged, exported or pushed."""

from collections.abc import Callable, Iterator, Mapping
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


def unmet(recipe: Recipe, measured: Mapping[str, Any]) -> Iterator[Problem]:
    """The gates of `evaluate.require` that the metrics of an evaluation do not meet."""
    for name, conditions in recipe["evaluate"].get("require", {}).items():
        metric, found = name.rpartition(".")[2], _values(measured, name)
        for condition, bound in conditions.items():
            path = ("evaluate", "require", name, condition)
            if found is None:
                yield recipe.problem(path, "no row could be measured; give rows that have an answer")
                continue
            value, base = found
            meets, otherwise = CONDITIONS[condition]
            if not meets(value, base, bound):
                shown = {"bound": figure(metric, bound), "base": f"the base's {figure(metric, base)}"}
                yield recipe.problem(path, f"{figure(metric, value)} is {otherwise.format(**shown)}")


def _values(measured: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The adapter's and the base model's value of a metric, or of one of a further row set: general.loss."""
    rows, _, metric = name.rpartition(".")
    figures = measured["also"].get(rows, {}) if rows else measured
    if metric in figures.get("adapter", {}):
        return figures["adapter"][metric], figures["base"][metric]
    return None
