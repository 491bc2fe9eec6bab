"""The problems that the schema finds in the size of a number, a string, a list or a mapping."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sized
from typing import Any, NamedTuple

from loracook.errors import Path, Problem, quote, spell
from loracook.recipe.did_you_mean import example
from loracook.recipe.schema import Schema, has_type, types_of


class At(NamedTuple):
    """Where a value is: its part of the schema, and its path in the recipe."""

    part: Schema
    path: Path


Check = Callable[[Any, Any, At], Iterator[Problem]]
"""Checks a value against one keyword's bound."""
Beyond = Callable[[Any, Any], bool]
MEASURED: dict[type, tuple[str, str, str]] = {
    str: ("string", "character", "characters"),
    list: ("list", "entry", "entries"),
    dict: ("mapping", "key", "keys"),
}


def bounds(part: Schema) -> str:
    """The bounds of a number in words."""
    noun = "a number" if "number" in types_of(part) else "an integer"
    most = "to" if "minimum" in part else "and at most"
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": most, "exclusiveMaximum": "and below"}
    return " ".join(
        [noun, *(f"{word} {spell(part[keyword])}" for keyword, word in words.items() if keyword in part)]
    )


def _number(beyond: Beyond, size: str) -> Check:
    def check(value: Any, bound: Any, at: At) -> Iterator[Problem]:
        if has_type(value, "number") and beyond(value, bound):
            yield Problem(at.path, f"{quote(value)} is too {size}; use {bounds(at.part)}", "range")

    return check


def _length(beyond: Beyond, kind: type[Sized], least_or_most: str) -> Check:
    name, unit, units = MEASURED[kind]

    def check(value: Any, bound: Any, at: At) -> Iterator[Problem]:
        if not isinstance(value, kind) or not beyond(len(value), bound):
            return
        if value:
            count = f"{len(value)} {unit if len(value) == 1 else units}"
            message = f"the {name} has {count}; use {least_or_most} {bound}"
        else:
            shown = example(at.part)
            message = f"the {name} is empty; " + (
                f"add at least one {unit}" if shown == "…" else f"use a value such as {quote(shown)}"
            )
        yield Problem(at.path, message, "length")

    return check


def _unique(value: Any, bound: Any, at: At) -> Iterator[Problem]:
    if not bound or not isinstance(value, list):
        return
    seen: set[str] = set()
    for index, spelled in enumerate(map(repr, value)):
        if spelled in seen:
            yield Problem(
                (*at.path, index), f"{quote(value[index])} is in the list twice; remove one", "unique"
            )
        seen.add(spelled)


BOUNDS: dict[str, Check] = {
    "minimum": _number(operator.lt, "small"),
    "exclusiveMinimum": _number(operator.le, "small"),
    "maximum": _number(operator.gt, "large"),
    "exclusiveMaximum": _number(operator.ge, "large"),
    "minLength": _length(operator.lt, str, "at least"),
    "maxLength": _length(operator.gt, str, "at most"),
    "minItems": _length(operator.lt, list, "at least"),
    "maxItems": _length(operator.gt, list, "at most"),
    "uniqueItems": _unique,
    "minProperties": _length(operator.lt, dict, "at least"),
    "maxProperties": _length(operator.gt, dict, "at most"),
}
