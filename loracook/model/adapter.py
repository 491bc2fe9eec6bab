"""The LoRA adapter a recipe asks for, held against the modules of its model."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from loracook.errors import Problem, RecipeError
from loracook.model.target_modules import (
    adaptable,
    default_targets,
    is_meant,
    last_names,
    unadaptable,
    unmatched,
)

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch.nn import Module

    from loracook.recipe.recipe import Recipe

NESTED = ("loraplus",)
NAMING = ("target_modules", "exclude_modules", "modules_to_save")


def lora_config(recipe: Recipe) -> LoraConfig:
    """The recipe's `lora` section as PEFT's own config."""
    from peft import LoraConfig

    section = {key: value for key, value in recipe["lora"].items() if key not in NESTED}
    # PEFT changes the lists that it is given; the recipe stays as it was read.
    return LoraConfig(**{"task_type": "CAUSAL_LM", **deepcopy(section)})


def check_modules(model: Module, recipe: Recipe) -> None:
    """Hold every module name of the `lora` section against the model (one on the meta device will do).

    PEFT drops a name that matches nothing without a word as long as another one matches.

    Raises:
        RecipeError: names that match nothing or nothing that LoRA can adapt, each with those that would do.
    """
    everything = [name for name, _ in model.named_modules()]
    known = dict.fromkeys(NAMING, everything) | {"target_modules": adaptable(model)}
    problems = [
        recipe.problem(("lora", key, index), unmatched(wanted, everything, known[key]))
        for key in NAMING
        for index, wanted in enumerate(_listed(recipe, key))
        if not any(is_meant(wanted, name) for name in known[key])
    ]
    problems += _no_default_targets(model, recipe) + _all_linear(model, recipe)
    if problems:
        raise RecipeError(problems)


def _listed(recipe: Recipe, key: str) -> list[str]:
    """The module names of a key, which may hold a word for all of them instead."""
    value = recipe["lora"].get(key, [])
    return value if isinstance(value, list) else []


def _no_default_targets(model: Module, recipe: Recipe) -> list[Problem]:
    lora = recipe["lora"]
    if lora.get("target_modules") or lora.get("target_parameters") or default_targets(model):
        return []
    names = ", ".join(last_names(adaptable(model))[:8])
    kind = f"'{model.config.model_type}' models"
    message = f"PEFT has no default for {kind}; write target_modules: all-linear, or names of: {names}"
    return [recipe.problem(("lora",), message)]


def _all_linear(model: Module, recipe: Recipe) -> list[Problem]:
    """The problem of modules that all-linear takes along and PEFT fails on."""
    if recipe["lora"].get("target_modules") != "all-linear":
        return []
    left_out = last_names(_listed(recipe, "exclude_modules"))
    names = ", ".join(name for name in unadaptable(model) if name not in left_out)
    message = f"LoRA cannot adapt '{names}' of this model; write exclude_modules: [{names}] beside it"
    return [recipe.problem(("lora", "target_modules"), message)] if names else []
