"""A recipe as others may read it, who have neither this machine's folders nor need to know their names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loracook.recipe.recipe import Recipe

PLACES = ("name_or_path", "path", "data_files", "chat_template", "start_from")
SECTIONS = ("base_model", "tokenizer", "dataset", "template", "lora")
OF_THE_HUB = {"base_model", "tokenizer"}
NOT_PLACES = ("where", "columns", "map_roles")
SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})/?$")
"""How the hub's cache names the folder of a model's commit."""


def shareable(recipe: Recipe) -> Recipe:
    """The recipe with paths from its own folder where they are in its repository, else a name alone.

    A model or tokenizer from the hub's cache gets its id and its commit.
    """
    parts = {name: recipe[name] for name in SECTIONS if name in recipe}
    shared = {name: _shared(recipe, name, part) for name, part in parts.items()}
    for section in OF_THE_HUB & shared.keys():
        if found := SNAPSHOT.search(recipe[section].get("name_or_path", "")):
            organization, name, commit = found.groups()
            shared[section] |= {"name_or_path": f"{organization}/{name}", "revision": commit}
    return replace(recipe, sections={**recipe.sections, **shared})


def _shared(recipe: Recipe, key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: part if name in NOT_PLACES else _shared(recipe, name, part) for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_shared(recipe, key, part) for part in value]
    is_place = key in PLACES and isinstance(value, str) and value.startswith(("/", "../"))
    return _named(recipe, value) if is_place else value


def _named(recipe: Recipe, path: str) -> str:
    folder, root = os.path.abspath(recipe.reach.folder), os.path.abspath(recipe.reach.root)
    place = os.path.normpath(os.path.join(folder, path))
    if os.path.commonpath([place, root]) != root:
        return f"./{os.path.basename(place)}"
    relative = os.path.relpath(place, folder)
    return relative if relative.startswith("../") else f"./{relative}"
