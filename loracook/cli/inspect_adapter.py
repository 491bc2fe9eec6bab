"""Where the adapter and the base weights are that `loracook inspect` compares."""

from __future__ import annotations

from pathlib import Path

from loracook.cli.inspect_model import recipe_on
from loracook.errors import LoracookError, RecipeError, quote
from loracook.model.adapter_effect import effects
from loracook.model.base_weights import BaseWeights, open_weights
from loracook.model.fetch import fetched
from loracook.model.lora_factors import CONFIG, INTO_ADAPTER, SavedAdapter, read_adapter
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import part_at
from loracook.recipe.schema_errors import check
from loracook.results.find import find, find_recipe, place
from loracook.store.folders import default_cache
from loracook.views.adapter_effect import AdapterInspection

NAME_IT = "name it with --base"


def find_adapter(target: str, runs: Path, allowed: Allowed) -> tuple[Path, Recipe | None] | None:
    """The folder of the adapter that a recipe, a run or a folder has, and the recipe; None for anything else.

    Raises:
        LoracookError: the run has no adapter yet.
    """
    path = Path(target).expanduser()
    if (path / CONFIG).is_file():
        return path, None
    recipe = find_recipe(target, runs, allowed=allowed)
    if recipe is None and place(target, runs) is None:
        return (path / "adapter", None) if (path / "adapter" / CONFIG).is_file() else None
    run = find(target, runs, allowed=allowed)
    if "train" not in run.stages:
        raise LoracookError(f"'{run.folder}' has no trained adapter yet; run its recipe again")
    return run.stages["train"] / "adapter", recipe


def inspect_adapter(
    folder: Path, recipe: Recipe | None, *, base: str | None, allowed: Allowed
) -> AdapterInspection:
    """What the adapter in a folder changed in its base model, or in the weights that the user names."""
    adapter = read_adapter(folder, allowed)
    weights, left_out = (_named(base, allowed), []) if base else _own_base(adapter, recipe, allowed)
    found, misfits = effects(adapter, weights)
    settings = adapter.settings
    return AdapterInspection(
        adapter=str(folder),
        base_model=str(weights.place) if weights else None,
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        use_rslora=settings["use_rslora"],
        effects=found,
        notes=[*left_out, *_notes(adapter), *misfits],
    )


def _named(base: str, allowed: Allowed) -> BaseWeights:
    """The weights that the user names: a safetensors file or a folder of them, a .gguf file or a hub id."""
    path = Path(base).expanduser()
    if path.is_dir() or path.suffix == ".safetensors":
        return open_weights(path)
    return _on_this_machine(recipe_on(base, None, allowed))


def _own_base(
    adapter: SavedAdapter, recipe: Recipe | None, allowed: Allowed
) -> tuple[BaseWeights | None, list[str]]:
    """The weights that the recipe or the adapter names, or why W is left out: nobody asked for those."""
    name = adapter.settings["base_model_name_or_path"]
    if adapter.settings["layer_replication"]:
        return None, ["W is left out: layer_replication numbers the layers anew"]
    if recipe is None and not name:
        return None, [f"W is left out: the adapter does not say what its base model is; {NAME_IT}"]
    try:
        return _on_this_machine(recipe or _recipe_of(adapter, allowed)), []
    except LoracookError as error:
        reason = error.problems[0].message if isinstance(error, RecipeError) else str(error)
        return None, [f"W is left out: base model {quote(name)}: {reason}"]


def _recipe_of(adapter: SavedAdapter, allowed: Allowed) -> Recipe:
    """A recipe in the working folder that names what the adapter names, which may be any text."""
    name, revision = (adapter.settings[key] for key in ("base_model_name_or_path", "revision"))
    section = {"name_or_path": name} | ({"revision": revision} if revision else {})
    if problems := list(check(section, part_at(("base_model",)) or {}, ("base_model",))):
        raise RecipeError(problems)
    return Recipe(Path("inspect"), {"base_model": section}, (), (), allowed)


def _on_this_machine(recipe: Recipe) -> BaseWeights:
    folder = fetched(recipe, default_cache())
    if folder is None:
        raise LoracookError(f"its weights are not on this machine as safetensors; {NAME_IT} FOLDER")
    return open_weights(folder)


def _notes(adapter: SavedAdapter) -> list[str]:
    """What the figures leave out."""
    notes = [
        f"{name}: the figures are those of BA alone, without what {name} adds" for name in adapter.variants
    ]
    init = str(adapter.settings["init_lora_weights"])
    if INTO_ADAPTER.match(init):
        notes.append(
            f"init_lora_weights {quote(init)} takes a part of W into BA before training; ΔW includes it"
        )
    if other := adapter.not_shown():
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        notes.append(f"not shown: {quote(other[0])}{more}")
    return notes
