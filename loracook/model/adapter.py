"""The LoRA adapter of a recipe, checked against the modules of its model."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from loracook.errors import Problem, RecipeError
from loracook.model.target_modules import (
    adaptable_modules,
    default_targets,
    last_names,
    matches,
    unmatched,
)
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch.nn import Module


NOT_PASSED_ON = ("loraplus", "start_from", "start_from_revision")
NAMING = ("target_modules", "exclude_modules", "modules_to_save")


def lora_config(recipe: Recipe, left_out: Sequence[str] = ()) -> LoraConfig:
    """The recipe's `lora` section as PEFT's own config, more modules left out."""
    from peft import LoraConfig

    section = {key: value for key, value in recipe["lora"].items() if key not in NOT_PASSED_ON}
    if left_out:
        section["exclude_modules"] = list(dict.fromkeys([*_listed(recipe, "exclude_modules"), *left_out]))
    # PEFT changes the lists that it is given; the recipe must not change.
    return LoraConfig(**{"task_type": "CAUSAL_LM", **deepcopy(section)})


def train_in_float32(tuned: PeftModel) -> None:
    """Keep in float32 what is trained in bfloat16, whose gradients torch cannot unscale on a GPU.

    TRL trains an adapter on a quantized base in bfloat16, also where mixed precision is float16 (trl 1.16,
    SFTTrainer). Source: pytorch issue 127176, for torch 2.13.
    """
    import torch

    for weight in tuned.parameters():
        if weight.requires_grad and weight.dtype == torch.bfloat16:
            weight.data = weight.data.float()


def check_modules(model: Module, recipe: Recipe) -> None:
    """Check every module name of the `lora` section against the model (one on the meta device will do).

    PEFT silently drops a name that matches nothing as long as another one matches.

    Raises:
        RecipeError: names that match nothing or nothing that LoRA can adapt, each with those that would do.
    """
    names = [name for name, _ in model.named_modules()]
    candidates = dict.fromkeys(NAMING, names) | {"target_modules": adaptable_modules(model)}
    problems = [
        recipe.problem(("lora", key, index), unmatched(target, names, candidates[key]))
        for key in NAMING
        for index, target in enumerate(_listed(recipe, key))
        if not any(matches(target, name) for name in candidates[key])
    ]
    problems += _no_default_targets(model, recipe)
    if problems:
        raise RecipeError(problems)


def _listed(recipe: Recipe, key: str) -> list[str]:
    """The module names of a key; empty where it holds a word for all of them instead."""
    value = recipe["lora"].get(key, [])
    return value if isinstance(value, list) else []


def _no_default_targets(model: Module, recipe: Recipe) -> list[Problem]:
    lora = recipe["lora"]
    if lora.get("target_modules") or lora.get("target_parameters") or default_targets(model):
        return []
    names = ", ".join(last_names(adaptable_modules(model))[:8])
    message = (
        f"PEFT has no default target_modules for '{model.config.model_type}' models; "
        f"write target_modules: all-linear, or some of: {names}"
    )
    return [recipe.problem(("lora",), message)]
