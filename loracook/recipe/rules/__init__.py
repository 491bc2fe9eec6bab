"""Rules that join entries of a recipe; each gives the problems it finds in valid data with its defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from loracook.errors import Problem
from loracook.recipe.rules import (
    adapter,
    dataset,
    eval_during_training,
    evaluate,
    merge_push,
    schedule,
    train,
)

Rule = Callable[[dict[str, Any]], Iterator[Problem]]

RULES: tuple[Rule, ...] = (
    *adapter.RULES,
    *dataset.RULES,
    *train.RULES,
    *schedule.RULES,
    *eval_during_training.RULES,
    *evaluate.RULES,
    *merge_push.RULES,
)


def rule_problems(data: dict[str, Any]) -> Iterator[Problem]:
    """Every problem that any rule finds, named after its rule."""
    for rule in RULES:
        for problem in rule(data):
            yield replace(problem, rule=rule.__name__.replace("_", "-"))
