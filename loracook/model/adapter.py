"""The LoRA adapter a recipe asks for, and which of the model's modules it lands on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING

from loracook.errors import Problem, RecipeError

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch.nn import Module

    from loracook.recipe import Recipe

NESTED = ("loraplus",)


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
        RecipeError: names that match nothing, each with the names that would.
    """
    names = [name for name, _ in model.named_modules()]
    problems = [
        _unmatched(
            recipe, path, wanted, adaptable_names(model) if path[1] == "target_modules" else leaf_names(names)
        )
        for path, wanted in _wanted(recipe)
        if not any(name == wanted or name.endswith(f".{wanted}") for name in names)
    ]
    problems += _no_default_targets(model, recipe)
    if problems:
        raise RecipeError(problems)


def adaptable_names(model: Module) -> list[str]:
    """The last names of the modules that LoRA can adapt, those of the output head left out, sorted."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)
    head = _output_head(model)
    found = (
        name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head
    )
    return leaf_names(found)


def leaf_names(names: Iterable[str]) -> list[str]:
    """The last parts of dotted module names, without layer numbers, sorted and each once."""
    return sorted({name.rsplit(".", 1)[-1] for name in names if name} - set(map(str, range(1000))))


def _output_head(model: Module) -> Module | None:
    get = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None


def _wanted(recipe: Recipe) -> Iterable[tuple[tuple[str | int, ...], str]]:
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        value = recipe["lora"].get(key, [])
        if isinstance(value, list):
            yield from ((("lora", key, index), name) for index, name in enumerate(value))


def _unmatched(recipe: Recipe, path: tuple[str | int, ...], wanted: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(wanted.rsplit(".", 1)[-1], known, n=3, cutoff=0.5)
    hint = " or ".join(f"'{name}'" for name in near) if near else "one of " + ", ".join(known[:12])
    return recipe.problem(path, f"'{wanted}' matches no module of this model; write {hint}")


def _no_default_targets(model: Module, recipe: Recipe) -> list[Problem]:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    lora = recipe["lora"]
    kind = str(getattr(model.config, "model_type", ""))
    if lora.get("target_modules") or lora.get("target_parameters") or kind in DEFAULTS:
        return []
    names = ", ".join(adaptable_names(model)[:8])
    message = (
        f"PEFT has no default for '{kind}' models; write target_modules: all-linear, or names of: {names}"
    )
    return [recipe.problem(("lora",), message)]
