"""Which recipes to check, and the problems of each."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from glob import escape, glob, has_magic
from pathlib import Path

from loracook.errors import Position, Problem, RecipeError
from loracook.recipe.allowed import NOTHING, Allowed
from loracook.recipe.extends import MAX_PARENTS, lineage
from loracook.recipe.present import missing_files
from loracook.recipe.reach import OutOfReachError, reach_of, split_pattern
from loracook.recipe.recipe import Recipe, load, placed

SUFFIXES = (".yaml", ".yml")
EXTENDS = re.compile(rb"""^extends:[ \t]*["']?([^"'#\s][^"'#\r\n]*[^"'#\s])""", re.MULTILINE)


def problems_of(file: str, overrides: Sequence[str] = (), allowed: Allowed = NOTHING) -> tuple[Problem, ...]:
    """Every problem of one recipe, including warnings."""
    try:
        return _no_recipe(file) or load(file, overrides, allowed).warnings
    except RecipeError as error:
        return error.problems


def checked(file: str, overrides: Sequence[str] = (), allowed: Allowed = NOTHING) -> tuple[Problem, ...]:
    """Every problem of one recipe; where it is valid, also the local files that are missing."""
    try:
        return _no_recipe(file) or _with_missing_files(load(file, overrides, allowed))
    except RecipeError as error:
        return error.problems


def _with_missing_files(recipe: Recipe) -> tuple[Problem, ...]:
    missing = missing_files(dict(recipe.sections), recipe.reach)
    return (*recipe.warnings, *(placed(problem, recipe.layers) for problem in missing))


def strict(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems with every warning turned into an error."""
    return tuple(replace(problem, severity="error") for problem in problems)


def recipes(names: Iterable[str], allowed: Allowed = NOTHING) -> list[str]:
    """The recipe files of paths, folders and glob patterns, without those that another of them extends.

    A folder or pattern without recipes is returned as it is, and becomes a problem of its own. A file
    found in a folder is left out where it leads elsewhere, see `refused`; one that is named may be a link.
    """
    every = (file for name in names for file in _files(name) if not _refusal(name, file, allowed))
    files = list(dict.fromkeys(every))
    parents = {os.path.realpath(file): _parents(file) for file in files}
    extended = set().union(*(above for file, above in parents.items() if file not in above))
    return [file for file in files if os.path.realpath(file) not in extended]


def refused(names: Iterable[str], allowed: Allowed = NOTHING) -> list[Problem]:
    """A problem for each file found in a folder or by a pattern that may not be read, without its content."""
    found = {file: _refusal(name, file, allowed) for name in names for file in _files(name)}
    places = ((Position(file, 1, 1, 2), refusal) for file, refusal in found.items())
    return [Problem((), refusal, "file", position=place) for place, refusal in places if refusal]


def _refusal(name: str, file: str, allowed: Allowed) -> str | None:
    """Why a file found under a name may not be read; None where it may, or is what was named."""
    if file == name:
        return None
    start = Path(name if os.path.isdir(name) else split_pattern(name)[0])
    try:
        reach_of(start / "any", allowed).resolve(os.path.relpath(file, start))
    except OutOfReachError as error:
        return str(error)
    return None


def _files(name: str) -> list[str]:
    if os.path.isdir(name):
        return sorted(_recipes_in(name)) or [name]
    if _is_pattern(name):
        folder, rest = split_pattern(name)
        found = sorted(glob(os.path.join(escape(folder), rest), recursive=True))
        return [file for file in found if not os.path.isdir(file)] or [name]
    return [name]


def _no_recipe(name: str) -> tuple[Problem, ...]:
    if os.path.isdir(name):
        message = "no recipes in this folder; use a folder with .yaml files"
    elif _is_pattern(name):
        message = "no recipe matches this pattern; check the path and the quoting"
    else:
        return ()
    return (Problem((), message, "file", position=Position(name, 1, 1, 2)),)


def _is_pattern(name: str) -> bool:
    return has_magic(name) and not os.path.exists(name)


def _recipes_in(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, file) for file in files if _is_recipe(file))


def _is_recipe(file: str) -> bool:
    return file.endswith(SUFFIXES) and not file.startswith(".")


def _parents(file: str) -> set[str]:
    """The real paths of the recipes that one extends, itself included where they make a cycle."""
    return set(map(os.path.realpath, _ancestors(file))) if b"extends" in _text(file) else set()


def _text(file: str) -> bytes:
    try:
        return Path(file).read_bytes()[: 1 << 18] if os.path.isfile(file) else b""
    except OSError:
        return b""


def _ancestors(file: str) -> list[str]:
    try:
        return [layer.file for layer in lineage(file, reach_of(Path(file), NOTHING))[1:]]
    except RecipeError:
        return list(_parents_by_line(file))


def _parents_by_line(file: str) -> Iterator[str]:
    """The parents of a recipe that cannot be loaded, taken from the `extends:` lines alone."""
    reach = reach_of(Path(file), NOTHING)
    for _ in range(MAX_PARENTS):
        line = EXTENDS.search(_text(file))
        if line is None:
            return
        file = os.path.join(os.path.dirname(file), line[1].decode(errors="replace"))
        if reach.refusal(os.path.relpath(file, reach.folder)):
            return
        yield file
