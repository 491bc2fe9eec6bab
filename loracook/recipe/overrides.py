"""`--set a.b.c=value`: one entry from the command line, typed by the schema."""

import re
from dataclasses import replace
from typing import Any

from loracook.errors import Path, Position, Problem, RecipeError, quote
from loracook.recipe.layers import Layer
from loracook.recipe.schema import has_type, part_at, types_of
from loracook.recipe.source import Entry, Source, parse
from loracook.recipe.text import invisible_characters
from loracook.recipe.yaml_values import resolve

FILE = "--set"
DEEPEST = 32
PART = re.compile(r'"([^"]*)"|([^".=]+)')
PATH = re.compile(rf"(?:{PART.pattern})(?:\.(?:{PART.pattern}))*(?==)")


def override(text: str, number: int) -> Layer:
    """The layer of the `number`th `--set` (from 1); raises RecipeError when it cannot be read."""
    match = PATH.match(text)
    whole = Position(FILE, number, 1, len(text) + 1)
    if hidden := next(invisible_characters(text, FILE), None):
        raise RecipeError([replace(hidden, position=whole)])
    if not match:
        message = f"{quote(text)} sets nothing; use --set section.key=value"
        raise RecipeError([Problem((), message, "set", position=whole)])
    path = path_of(match[0])
    if len(path) > DEEPEST:
        message = f"{quote(text)} is deeper than any key; use --set section.key=value"
        raise RecipeError([Problem((), message, "set", position=whole)])
    if path[0] == "extends":
        message = "cannot be set on the command line; write it in the recipe"
        raise RecipeError([Problem(path, message, "set", position=whole)])
    key = Position(FILE, number, 1, match.end() + 1)
    value = Position(FILE, number, match.end() + 2, max(len(text) + 1, match.end() + 3))
    source = _value(text[match.end() + 1 :], path, value)
    inner = {(*path, *below): Entry(value, value) for below in source.positions}
    return Layer("set", path, source.data, inner | {path: Entry(key, value)})


def path_of(text: str) -> Path:
    """The parts of a dotted path; numbers index lists, and a key that contains dots is in double quotes."""
    path: Path = ()
    for quoted, plain in PART.findall(text):
        is_index = plain.isascii() and plain.isdigit() and "array" in types_of(part_at(path) or {})
        path = (*path, int(plain) if is_index else quoted or plain)
    return path


def _value(text: str, path: Path, position: Position) -> Source:
    part = part_at(path)
    types = types_of(part) if part else ()
    if text[:1] in ("'", '"', "[", "{") and types != ("string",):
        try:
            return parse(text, FILE)
        except RecipeError as error:
            raise RecipeError(_shifted(problem, position) for problem in error.problems) from error
    return Source(FILE, _typed(text, types), {})


def _shifted(problem: Problem, value: Position) -> Problem:
    position = problem.position
    if position is None or position.line > 1:
        return replace(problem, position=value)
    before = value.column - 1
    column, end = position.column + before, position.end_column + before
    return replace(problem, position=Position(FILE, value.line, column, end))


def _typed(text: str, types: tuple[str, ...]) -> Any:
    """The value of an unquoted text, which stays a string where the schema allows no other type it has."""
    value = resolve(text)
    others = [name for name in types if name != "string"]
    stays = "string" in types and value is not None and not any(has_type(value, name) for name in others)
    return text if stays else value
