"""The modules of a base model, those that LoRA can adapt, and what each rank costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.cli.screen import noise_to
from loracook.errors import LoracookError, RecipeError
from loracook.machine.memory import infrequent_gc
from loracook.recipe.allowed import Allowed, code_problems
from loracook.recipe.recipe import Recipe
from loracook.store.folders import default_cache
from loracook.views.inspect_text import Inspection

if TYPE_CHECKING:
    from torch.nn import Module


def inspect_model(name: str, recipe: Recipe, ranks: Sequence[int], *, targets: str | None) -> Inspection:
    """What a base model is made of, from its config.json alone, and what LoRA of each rank would train."""
    with noise_to(Path(os.devnull)), infrequent_gc():
        return _inspected(name, recipe, ranks, targets=targets)


def recipe_on(model: str, revision: str | None, allowed: Allowed) -> Recipe:
    """A recipe that names only the model; an existing path is local, anything else a hub id."""
    path = Path(model).expanduser()
    local = path.exists()
    if not local and (path.is_absolute() or model.startswith(".")):
        raise LoracookError(f"'{model}' does not exist")
    place = path.parent.resolve() / path.name if path.is_file() else path.resolve()
    base: dict[str, Any] = {"name_or_path": f"./{place.name}" if local else model, "dtype": "bfloat16"}
    root = place.parent if local else Path()
    sections = {"base_model": base | ({"revision": revision} if revision else {})}
    if problems := list(code_problems(sections["base_model"], allowed)):
        raise RecipeError(problems)
    return Recipe(root / "inspect", sections, (), allowed=allowed.and_path(path) if local else allowed)


def _inspected(name: str, recipe: Recipe, ranks: Sequence[int], *, targets: str | None) -> Inspection:
    from peft import LoraConfig

    from loracook import model
    from loracook.model.modules import module_groups, rank_costs
    from loracook.model.parameters import meta_copy, unadapted_weights, with_adapter
    from loracook.model.target_modules import default_targets

    base = model.load_on_meta(recipe, model.fetch_description(recipe, default_cache()))
    default = default_targets(base)
    chosen = _targets(targets, default, base)
    left_out = model.left_out(base, chosen)
    parts = list(dict.fromkeys(left_out.values()))
    adapter = LoraConfig(target_modules=chosen, exclude_modules=list(left_out) or None)
    return Inspection(
        name_or_path=name,
        model_type=base.config.model_type,
        parameters=sum(tensor.numel() for tensor in base.parameters()),
        modules=module_groups(base),
        default_targets=default,
        target_modules=chosen,
        excluded=parts,
        unadapted=unadapted_weights(with_adapter(meta_copy(base), adapter), parts),
        ranks=rank_costs(base, ranks, adapter),
    )


def _targets(text: str | None, default: list[str], base: Module) -> str | list[str]:
    """The modules of --target-modules, else PEFT's default, else all linear ones."""
    from loracook.model.target_modules import adaptable_modules, matches, unmatched

    if text is None or text == "all-linear":
        return "all-linear" if text else default or "all-linear"
    names, candidates = [name.strip() for name in text.split(",")], adaptable_modules(base)
    wrong = [name for name in names if not any(matches(name, candidate) for candidate in candidates)]
    if wrong:
        raise LoracookError(unmatched(wrong[0], [name for name, _ in base.named_modules()], candidates))
    return names
