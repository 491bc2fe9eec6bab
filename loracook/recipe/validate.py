"""Which recipes are to be checked, and what is wrong with each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path

from loracook.errors import Position, Problem, RecipeError
from loracook.recipe.extends import GENERATIONS, lineage
from loracook.recipe.recipe import load

SUFFIXES = (".yaml", ".yml")
EXTENDS = re.compile(rb"""^extends:[ \t]*["']?([^"'#\s][^"'#\r\n]*[^"'#\s])""", re.MULTILINE)


def problems_of(file: str, overrides: Sequence[str] = ()) -> tuple[Problem, ...]:
    """Every problem of one recipe, warnings among them."""
    try:
        return _unfound(file) or load(file, overrides).warnings
    except RecipeError as error:
        return error.problems


def strict(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems with every warning made an error."""
    return tuple(replace(problem, severity="error") for problem in problems)


def recipes(names: Iterable[str]) -> list[str]:
    """The files that names, folders and patterns stand for; parents are left to those that extend them.

    A folder or a pattern without recipes stands for itself, and is a problem like any other.
    """
    files = list(dict.fromkeys(file for name in names for file in _found(name)))
    above = {os.path.realpath(file): _parents(file) for file in files}
    left = set().union(*(parents for file, parents in above.items() if file not in parents))
    return [file for file in files if os.path.realpath(file) not in left]


def _found(name: str) -> list[str]:
    if os.path.isdir(name):
        return sorted(_inside(name)) or [name]
    if _is_pattern(name):
        return [file for file in sorted(glob(name, recursive=True)) if os.path.isfile(file)] or [name]
    return [name]


def _unfound(name: str) -> tuple[Problem, ...]:
    if os.path.isdir(name):
        message = "there are no recipes in this folder; name one with .yaml files"
    elif _is_pattern(name):
        message = "no recipe fits this pattern; check the folder and the quotes"
    else:
        return ()
    return (Problem((), message, "file", position=Position(name, 1, 1, 2)),)


def _is_pattern(name: str) -> bool:
    return has_magic(name) and not os.path.exists(name)


def _inside(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, file) for file in files if _is_recipe(file))


def _is_recipe(file: str) -> bool:
    return file.endswith(SUFFIXES) and not file.startswith(".")


def _parents(file: str) -> set[str]:
    """The real paths of the recipes that one extends, itself among them where they run in a circle."""
    return set(map(os.path.realpath, _ancestors(file))) if b"extends" in _text(file) else set()


def _text(file: str) -> bytes:
    try:
        return Path(file).read_bytes()[: 1 << 18] if os.path.isfile(file) else b""
    except OSError:
        return b""


def _ancestors(file: str) -> list[str]:
    try:
        return [layer.file for layer in lineage(file)[1:]]
    except RecipeError:
        return list(_named(file))


def _named(file: str) -> Iterator[str]:
    """The parents that the lines of recipes name which cannot all be read."""
    for _ in range(GENERATIONS):
        line = EXTENDS.search(_text(file))
        if line is None:
            return
        file = os.path.join(os.path.dirname(file), line[1].decode(errors="replace"))
        yield file
