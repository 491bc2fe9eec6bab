"""Rules that join entries of a recipe; each gives the problems it finds in valid data with its defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from loracook.errors import Problem
from loracook.rules import adapter, dataset, evaluation, results, schedule, training, watching

Rule = Callable[[dict[str, Any]], Iterator[Problem]]

RULES: tuple[Rule, ...] = (
    *adapter.RULES,
    *dataset.RULES,
    *training.RULES,
    *schedule.RULES,
    *watching.RULES,
    *evaluation.RULES,
    *results.RULES,
)


def contradictions(data: dict[str, Any]) -> Iterator[Problem]:
    """Every problem that any rule finds, named after its rule."""
    for rule in RULES:
        for problem in rule(data):
            yield replace(problem, rule=rule.__name__.replace("_", "-"))
