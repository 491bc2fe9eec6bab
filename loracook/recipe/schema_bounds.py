"""The problems that the schema finds in the size of a number, a string, a list or a mapping."""

import operator
from collections.abc import Callable, Iterator, Sized
from typing import Any

from loracook.errors import Path, Problem, quote, spell
from loracook.recipe.did_you_mean import example
from loracook.recipe.schema import Schema, has_type, types_of

Check = Callable[[Any, Schema, Path], Iterator[Problem]]
"""Checks the value at a path against one keyword of its part of the schema."""
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


def _number(keyword: str, beyond: Beyond, size: str) -> Check:
    def check(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
        if has_type(value, "number") and beyond(value, part[keyword]):
            yield Problem(path, f"{quote(value)} is too {size}; use {bounds(part)}", "range")

    return check


def _length(keyword: str, kind: type[Sized]) -> Check:
    beyond, limit = (operator.lt, "at least") if keyword.startswith("min") else (operator.gt, "at most")
    name, unit, units = MEASURED[kind]

    def check(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
        if not isinstance(value, kind) or not beyond(len(value), part[keyword]):
            return
        if value:
            count = f"{len(value)} {unit if len(value) == 1 else units}"
            message = f"the {name} has {count}; use {limit} {part[keyword]}"
        else:
            shown = example(part)
            message = f"the {name} is empty; " + (
                f"add at least one {unit}" if shown == "…" else f"use a value such as {quote(shown)}"
            )
        yield Problem(path, message, "length")

    return check


def _unique(value: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not part["uniqueItems"] or not isinstance(value, list):
        return
    seen: set[str] = set()
    for index, spelled in enumerate(map(repr, value)):
        if spelled in seen:
            yield Problem((*path, index), f"{quote(value[index])} is in the list twice; remove one", "unique")
        seen.add(spelled)


BOUNDS: dict[str, Check] = {
    "minimum": _number("minimum", operator.lt, "small"),
    "exclusiveMinimum": _number("exclusiveMinimum", operator.le, "small"),
    "maximum": _number("maximum", operator.gt, "large"),
    "exclusiveMaximum": _number("exclusiveMaximum", operator.ge, "large"),
    **{keyword: _length(keyword, str) for keyword in ("minLength", "maxLength")},
    **{keyword: _length(keyword, list) for keyword in ("minItems", "maxItems")},
    **{keyword: _length(keyword, dict) for keyword in ("minProperties", "maxProperties")},
    "uniqueItems": _unique,
}
