"""Rules between the keys of a recipe; each yields the problems of valid data with its defaults."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FunctionType
from typing import Any

from loracook.errors import Problem
from loracook.recipe.rules import (
    after_training,
    base_model,
    dataset,
    eval_during_training,
    evaluate,
    lm_eval,
    lora,
    schedule,
    train,
)

Rule = Callable[[dict[str, Any]], Iterator[Problem]]

MODULES = (
    *(base_model, lora, dataset, train, schedule, eval_during_training),
    *(evaluate, lm_eval, after_training),
)
RULES: tuple[Rule, ...] = tuple(
    rule
    for module in MODULES
    for name, rule in vars(module).items()
    if isinstance(rule, FunctionType) and rule.__module__ == module.__name__ and not name.startswith("_")
)
"""Every public function of the modules, in the order they are written in."""


def rule_problems(data: dict[str, Any]) -> Iterator[Problem]:
    """Every problem that any rule finds, named after its rule."""
    for rule in RULES:
        for problem in rule(data):
            yield replace(problem, rule=rule.__name__.replace("_", "-"))
