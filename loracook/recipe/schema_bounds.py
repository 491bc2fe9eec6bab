"""What the schema finds wrong with the size of a number, a text, a list or a mapping."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sized
from typing import Any

from loracook.errors import Path, Problem, quote, spell
from loracook.recipe.did_you_mean import example_of
from loracook.recipe.schema import Schema, fits, kinds_of

Check = Callable[[Any, Any, Schema, Path], Iterator[Problem]]
Beyond = Callable[[Any, Any], bool]
MEASURED: dict[type, tuple[str, str]] = {
    str: ("text", "character"),
    list: ("list", "entry"),
    dict: ("mapping", "key"),
}


def _number(beyond: Beyond, size: str) -> Check:
    def check(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
        if fits(value, "number") and beyond(value, bound):
            yield Problem(path, f"{quote(value)} is too {size}; write {span(part)}", "range")

    return check


def span(part: Schema) -> str:
    """The bounds of a number in words."""
    whole = "whole " if "number" not in kinds_of(part) else ""
    most = "to" if "minimum" in part else "and at most"
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": most, "exclusiveMaximum": "and below"}
    spans = [f"{word} {spell(part[keyword])}" for keyword, word in words.items() if keyword in part]
    return f"a {whole}number {' '.join(spans)}"


def _length(beyond: Beyond, kind: type[Sized], least_or_most: str) -> Check:
    def check(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
        if isinstance(value, kind) and beyond(len(value), bound):
            written = f"{least_or_most} {bound}" if value else _instead(kind, part)
            yield Problem(path, f"the {_measured(value)}; write {written}", "length")

    return check


def _measured(value: Any) -> str:
    name, unit = MEASURED[type(value)]
    units = unit if len(value) == 1 else unit.replace("entry", "entrie") + "s"
    return f"{name} has {len(value)} {units}" if value else f"{name} is empty"


def _instead(kind: type, part: Schema) -> str:
    example = example_of(part)
    return f"at least one {MEASURED[kind][1]}" if example == "…" else f"something like {quote(example)}"


def _unique(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if not bound or not isinstance(value, list):
        return
    seen: set[str] = set()
    for index, spelled in enumerate(map(repr, value)):
        if spelled in seen:
            yield Problem(
                (*path, index), f"{quote(value[index])} stands in the list twice; remove one", "unique"
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
