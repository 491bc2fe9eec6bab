"""The recipe's limits on flawed rows, held against what was counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from loracook.errors import Problem

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

ADVICE = {
    "truncated": ("rows are longer than train.max_length", "raise it or take them out"),
    "without_stop": (
        "rows do not teach to stop",
        "raise train.max_length or mark the end of turn in the template",
    ),
    "fully_masked": ("rows train nothing", "raise train.max_length or take them out"),
    "duplicates": ("rows repeat an earlier one", "take the repeats out"),
    "eval_leak": ("evaluation rows are also trained on", "take them out of the training rows"),
}


def over_limits(statistics: Mapping[str, Any], recipe: Recipe) -> list[Problem]:
    """Two problems for each limit that is exceeded, the second naming the worst rows."""
    return [
        recipe.problem(("dataset", "limits", name), line)
        for name, limit in recipe["dataset"]["limits"].items()
        if statistics["flaws"][name]["share"] > limit
        for line in _said(name, statistics["flaws"][name], limit)
    ]


def _said(name: str, flaw: Mapping[str, Any], limit: float) -> Iterator[str]:
    what, advice = ADVICE[name]
    yield f"{flaw['rows']} {what} ({flaw['share']:.1%}, limit {limit:.1%}); {advice}"
    worst = (f"row {row['row']} of {row['file']} ({row['tokens']})" for row in flaw["worst"])
    yield "worst (tokens): " + ", ".join(worst)
