"""The recipe's limits on flawed rows, held against what was counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from loracook.errors import Problem

if TYPE_CHECKING:
    from loracook.recipe import Recipe

ADVICE = {
    "truncated": (
        "rows are longer than train.max_length",
        "raise train.max_length or take the long rows out",
    ),
    "without_stop": (
        "rows do not teach the model to stop",
        "raise train.max_length, or use a template that learns its end of turn",
    ),
    "fully_masked": (
        "rows train nothing",
        "raise train.max_length, change template.loss or take the rows out",
    ),
    "duplicates": ("rows repeat an earlier one", "take the repeats out of the data"),
    "eval_leak": ("evaluation rows are also trained on", "take them out of the training rows"),
}


def over_limits(statistics: Mapping[str, Any], recipe: Recipe) -> list[Problem]:
    """A problem for each limit that the rows exceed, with the three worst of them; none when all is well."""
    return [
        recipe.problem(("dataset", "limits", name), "".join(_said(name, statistics["flaws"][name], limit)))
        for name, limit in recipe["dataset"]["limits"].items()
        if statistics["flaws"][name]["share"] > limit
    ]


def _said(name: str, flaw: Mapping[str, Any], limit: float) -> Iterator[str]:
    what, advice = ADVICE[name]
    yield f"{flaw['rows']} {what} ({flaw['share']:.1%}, the limit is {limit:.1%}); {advice}; worst: "
    yield ", ".join(f"row {row['row']} of {row['file']} ({row['tokens']} tokens)" for row in flaw["worst"])
