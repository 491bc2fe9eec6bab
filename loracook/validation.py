"""Which recipes are to be checked, and what is wrong with each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path

from loracook.errors import Position, Problem, RecipeError
from loracook.language.lineage import lineage
from loracook.recipe import load

SUFFIXES = (".yaml", ".yml")


def problems_of(file: str, overrides: Sequence[str] = ()) -> tuple[Problem, ...]:
    """Every problem of one recipe, warnings among them."""
    try:
        return load(file, overrides).warnings
    except RecipeError as error:
        return error.problems


def strict(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems with every warning made an error."""
    return tuple(replace(problem, severity="error") for problem in problems)


def recipes(names: Iterable[str]) -> list[str]:
    """The files that names, folders and patterns stand for; found parents are left to those that extend them.

    Raises RecipeError for a folder or a pattern without recipes.
    """
    chosen: dict[str, bool] = {}
    for name in names:
        for file in _found(name):
            chosen[file] = chosen.get(file, False) or file == name
    parents = _parents(chosen)
    return [file for file, named in chosen.items() if named or os.path.realpath(file) not in parents]


def _found(name: str) -> list[str]:
    if os.path.isdir(name):
        return _some(
            sorted(_inside(name)), name, "there are no recipes in this folder; name one with .yaml files"
        )
    if has_magic(name) and not os.path.exists(name):
        files = [file for file in sorted(glob(name, recursive=True)) if os.path.isfile(file)]
        return _some(files, name, "no recipe fits this pattern; check the folder and the quotes")
    return [name]


def _some(files: list[str], name: str, message: str) -> list[str]:
    if not files:
        raise RecipeError([Problem((), message, "file", position=Position(name, 1, 1, 2))])
    return files


def _inside(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, file) for file in files if _is_recipe(file))


def _is_recipe(file: str) -> bool:
    return file.endswith(SUFFIXES) and not file.startswith(".")


def _parents(files: Iterable[str]) -> set[str]:
    """The real paths of the recipes that others of these extend."""
    return {os.path.realpath(parent) for file in files if _may_extend(file) for parent in _ancestors(file)}


def _may_extend(file: str) -> bool:
    try:
        return b"extends" in Path(file).read_bytes()[: 1 << 18] if os.path.isfile(file) else False
    except OSError:
        return False


def _ancestors(file: str) -> list[str]:
    try:
        return [layer.file for layer in lineage(file)[1:]]
    except RecipeError:
        return []
