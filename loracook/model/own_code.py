"""A base model's own code: run only where the user allowed its commit, and never from a run folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loracook.errors import Path as Key
from loracook.errors import RecipeError, quote
from loracook.recipe.recipe import Recipe
from loracook.store.folders import commit

BASE_MODEL = ("base_model", "name_or_path")
NO_CODE = {"trust_remote_code": False}
"""The argument that keeps upstream from running any code that lies with a model or tokenizer."""
REFUSED = "trust_remote_code"
"""What upstream's errors name where a model requires code that it was not allowed to run."""


def own_code(recipe: Recipe) -> dict[str, bool]:
    """The argument that keeps upstream from running a base model's own code, or lets it where allowed."""
    return NO_CODE if recipe.own_code is None else {"trust_remote_code": True}


def requires_code(recipe: Recipe, folder: Path, at: Key = BASE_MODEL) -> RecipeError:
    """The error for what the recipe names at `at`, in `folder`: it requires code that is not allowed."""
    if at != BASE_MODEL:
        message = "requires its own code to be run, which is allowed to base models alone; name another"
        return RecipeError([recipe.problem(at, message)])
    of_hub = commit(folder)
    way = f"read it, then allow it: --allow-code {recipe['base_model']['name_or_path']}@{of_hub}"
    local = "name it by its hub id, where --allow-code can allow it"
    message = f"this model requires its own code to be run; {way if of_hub else local}"
    return RecipeError([recipe.problem(BASE_MODEL, message)])


def check_own_code(recipe: Recipe, folder: Path) -> None:
    """Raise RecipeError where an allowed model would run other code than that of the allowed commit."""
    if recipe.own_code and commit(folder) != recipe["base_model"]["revision"]:
        message = f"the hub gave the commit {commit(folder)}; --allow-code allows another one"
        raise RecipeError([recipe.problem(("base_model", "revision"), message)])
    for file in sorted(folder.glob("*.json")) if recipe.own_code else ():
        elsewhere = next((name for name in _code_names(_json(file)) if "--" in name), None)
        if elsewhere:
            repository = quote(elsewhere.partition("--")[0])
            fault = f"{file.name} asks for the code of {repository}, which no --allow-code allows"
            raise RecipeError([recipe.problem(BASE_MODEL, f"{fault}; name a copy with its code inside")])


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError:  # whoever loads it says so
        return None


def _code_names(value: Any) -> Iterator[str]:
    """Every name of a class in an `auto_map`, however deep it stands."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    )
    for key, inner in entries:
        if key == "auto_map":
            yield from _texts(inner)
        else:
            yield from _code_names(inner)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)
