"""The effective recipe as a run keeps it: in one file, which loads from the folder that it lies in."""

import os
from collections.abc import Iterator
from pathlib import Path as FilePath

from loracook.errors import Path
from loracook.recipe.derived import Data, all_sources
from loracook.recipe.layers import with_value
from loracook.recipe.locations import LOCAL, builder
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import entries
from loracook.recipe.yaml_values import rows
from loracook.store.folders import SCHEME

KEPT = "recipe.yaml"
PLACES = {"name_or_path", "path", "chat_template", "dataset_path"}
BY_COLUMN = {"where", "columns", "map_roles"}
"""Mappings whose keys are those of the data."""


def kept(recipe: Recipe, folder: FilePath) -> str:
    """The effective recipe as YAML, with its local paths as seen from `folder`."""
    sections = {**recipe.sections, "name": recipe.name}
    for path, text in _local(sections):
        sections = with_value(sections, path, _seen_from(folder, recipe.reach.folder / text))
    return "".join(f"{line}\n" for line, _ in rows(sections))


def _local(data: Data) -> Iterator[tuple[Path, str]]:
    """Every path on this machine: where it stands, and as it is written."""
    lists = {(*at, "data_files") for at, source in all_sources(data) if builder(source)}
    for path, text in entries(data):
        if isinstance(text, str) and not text.startswith(SCHEME) and BY_COLUMN.isdisjoint(path):
            is_place = path[-1] in PLACES and text.startswith(LOCAL)
            if is_place or not lists.isdisjoint((path, path[:-1])):
                yield path, text


def _seen_from(folder: FilePath, place: FilePath) -> str:
    relative = os.path.relpath(
        os.path.join(os.path.realpath(place.parent), place.name), os.path.realpath(folder)
    )
    return relative if relative.startswith("../") else f"./{relative}"
