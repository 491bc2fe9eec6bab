"""What the schema finds wrong with the size of a number, a text, a list or a mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any

from loracook.errors import Path, Problem, quote, spell
from loracook.schema import Schema, fits, kinds_of

Check = Callable[[Any, Any, Schema, Path], Iterator[Problem]]


def _minimum(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if fits(value, "number") and value < bound:
        yield Problem(path, f"{quote(value)} is too small; write {span(part)}", "range")


def _above(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if fits(value, "number") and value <= bound:
        yield Problem(path, f"{quote(value)} is too small; write {span(part)}", "range")


def _maximum(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if fits(value, "number") and value > bound:
        yield Problem(path, f"{quote(value)} is too large; write {span(part)}", "range")


def _below(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if fits(value, "number") and value >= bound:
        yield Problem(path, f"{quote(value)} is too large; write {span(part)}", "range")


def span(part: Schema) -> str:
    """The bounds of a number in words."""
    whole = "whole " if "number" not in kinds_of(part) else ""
    most = "to" if "minimum" in part else "and at most"
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": most, "exclusiveMaximum": "and below"}
    spans = [f"{word} {spell(part[keyword])}" for keyword, word in words.items() if keyword in part]
    return f"a {whole}number {' '.join(spans)}"


def _min_length(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, str) and len(value) < bound:
        yield Problem(path, f"{_count('text', value, 'character')}; write {_least(bound)}", "length")


def _max_length(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, str) and len(value) > bound:
        yield Problem(path, f"{_count('text', value, 'character')}; write at most {bound}", "length")


def _min_items(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, list) and len(value) < bound:
        yield Problem(path, f"{_count('list', value, 'entry')}; write {_least(bound)}", "length")


def _max_items(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, list) and len(value) > bound:
        yield Problem(path, f"{_count('list', value, 'entry')}; write at most {bound}", "length")


def _min_properties(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict) and len(value) < bound:
        yield Problem(path, f"{_count('mapping', value, 'key')}; write {_least(bound)}", "length")


def _max_properties(value: Any, bound: Any, part: Schema, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict) and len(value) > bound:
        yield Problem(path, f"{_count('mapping', value, 'key')}; write at most {bound}", "length")


def _least(bound: int) -> str:
    return "at least one" if bound == 1 else f"at least {bound}"


def _count(kind: str, value: Sized, unit: str) -> str:
    if not len(value):
        return f"the {kind} is empty"
    units = unit if len(value) == 1 else unit.replace("entry", "entrie") + "s"
    return f"the {kind} has {len(value)} {units}"


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
    "minimum": _minimum,
    "exclusiveMinimum": _above,
    "maximum": _maximum,
    "exclusiveMaximum": _below,
    "minLength": _min_length,
    "maxLength": _max_length,
    "minItems": _min_items,
    "maxItems": _max_items,
    "uniqueItems": _unique,
    "minProperties": _min_properties,
    "maxProperties": _max_properties,
}
