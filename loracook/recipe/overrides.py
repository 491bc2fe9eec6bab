"""`--set a.b.c=value`: one entry from the command line, typed by the schema."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from loracook.errors import Path, Position, Problem, RecipeError
from loracook.recipe.layers import Layer
from loracook.recipe.schema import fits, kinds_of, part_at
from loracook.recipe.source import Entry, Source, parse
from loracook.recipe.text import invisible
from loracook.recipe.yaml_values import resolve

FILE = "--set"
PART = re.compile(r'"([^"]*)"|([^".=]+)')
PATH = re.compile(rf"(?:{PART.pattern})(?:\.(?:{PART.pattern}))*(?==)")


def override(text: str, number: int) -> Layer:
    """The layer that the `number`th `--set` is (from 1); raises RecipeError when it cannot be read."""
    found = PATH.match(text)
    place = Position(FILE, number, 1, len(text) + 1)
    if not found:
        raise RecipeError(
            [Problem((), "this names no value; write --set section.key=value", "set", position=place)]
        )
    if hidden := next(invisible(text, FILE), None):
        raise RecipeError([replace(hidden, position=place)])
    path = path_of(found[0])
    if path[0] == "extends":
        raise RecipeError(
            [Problem(path, "a parent is named in the recipe alone; write it there", "set", position=place)]
        )
    key = Position(FILE, number, 1, found.end() + 1)
    value = Position(FILE, number, found.end() + 2, max(len(text) + 1, found.end() + 3))
    source = _value(text[found.end() + 1 :], path, value)
    inner = {(*path, *below): Entry(value, value) for below in source.positions}
    return Layer("set", path, source.data, inner | {path: Entry(key, value)})


def path_of(text: str) -> Path:
    """A dotted path in parts: numbers index lists, and a key with dots in it stands in double quotes."""
    path: Path = ()
    for quoted, plain in PART.findall(text):
        indexes = plain.isascii() and plain.isdigit() and "array" in kinds_of(part_at(path) or {})
        path = (*path, int(plain) if indexes else quoted or plain)
    return path


def _value(text: str, path: Path, place: Position) -> Source:
    part = part_at(path)
    kinds = kinds_of(part) if part else ()
    if text[:1] in ("'", '"', "[", "{") and kinds != ("string",):
        try:
            return parse(text, FILE)
        except RecipeError as error:
            raise RecipeError(_shifted(problem, place) for problem in error.problems) from error
    return Source(FILE, _typed(text, kinds), {})


def _shifted(problem: Problem, value: Position) -> Problem:
    place = problem.position
    if place is None or place.line > 1:
        return replace(problem, position=value)
    before = value.column - 1
    column, end = place.column + before, place.end_column + before
    return replace(problem, position=Position(FILE, value.line, column, end))


def _typed(text: str, kinds: tuple[str, ...]) -> Any:
    value = resolve(text)
    if (
        value is not None
        and "string" in kinds
        and not any(fits(value, kind) for kind in kinds if kind != "string")
    ):
        return text
    return value
