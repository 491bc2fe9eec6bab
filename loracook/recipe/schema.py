"""The recipe schema: the one list of keys and defaults, and how to look things up in it."""

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import Path

PLACES = (
    FilePath(__file__).parent,  # in a wheel
    FilePath(__file__).parents[2] / "schemas",  # in a checkout
)
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": int,
    "null": type(None),
}

Schema = dict[str, Any]


@cache
def schema() -> Schema:
    """The schema of recipes as JSON data; shared by all callers, so never change it."""
    return schema_file("recipe.schema.json")


def schema_file(name: str) -> Schema:
    """The schema in one of our files."""
    file = next((place / name for place in PLACES if (place / name).exists()), PLACES[-1] / name)
    loaded: Schema = json.loads(file.read_text("utf-8"))
    return loaded


def resolved(part: Schema) -> Schema:
    """A part of the schema with its `$ref` followed; its own keywords win over those referred to."""
    while "$ref" in part:
        target: Any = schema()
        for name in part["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        part = {**target, **{keyword: bound for keyword, bound in part.items() if keyword != "$ref"}}
    return part


def part_at(path: Path) -> Schema | None:
    """The part of the schema for the value at `path`, None where there is no such key."""
    part = resolved(schema())
    for name in path:
        inner = part.get("items") if isinstance(name, int) else inner_part(part, name)
        if not isinstance(inner, dict):
            return None
        part = resolved(inner)
    return part


def inner_part(part: Schema, name: str) -> Any:
    """The part of the schema for one key of a mapping; None or False where the key is not allowed."""
    return part.get("properties", {}).get(name, part.get("additionalProperties"))


def types_of(part: Schema) -> tuple[str, ...]:
    """The JSON types that a part of the schema allows; empty where it allows any."""
    types = part.get("type", ())
    return (types,) if isinstance(types, str) else tuple(types)


def has_type(value: Any, name: str) -> bool:
    """Whether a value has a JSON type: true is no number, 4.0 no integer, NaN and infinity are neither."""
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float):
        return name == "number" and math.isfinite(value)
    return name in TYPES and isinstance(value, TYPES[name])


@cache
def all_keys() -> tuple[tuple[Path, Schema], ...]:
    """Every named key with its path and its part of the schema; entries of lists have index 0."""
    return tuple(_keys_below((), resolved(schema())))


def places(name: str) -> list[Path]:
    """The path of every key of that name; entries of lists have index 0."""
    return [path for path, _ in all_keys() if path[-1] == name]


def _keys_below(path: Path, part: Schema) -> Iterator[tuple[Path, Schema]]:
    for name, inner in part.get("properties", {}).items():
        yield (*path, name), resolved(inner)
        yield from _keys_below((*path, name), resolved(inner))
    if isinstance(part.get("items"), dict):
        yield from _keys_below((*path, 0), resolved(part["items"]))


def entries(data: Any) -> list[tuple[Path, Any]]:
    """Every value inside the data with its path, in the order written, a mapping before its entries."""
    collected: list[tuple[Path, Any]] = []
    _collect(data, (), collected)
    return collected


def _collect(data: Any, path: Path, into: list[tuple[Path, Any]]) -> None:
    named = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in named:
        below = (*path, name)
        into.append((below, value))
        if isinstance(value, dict | list):
            _collect(value, below, into)


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """The data with loracook's own defaults filled in, its keys in the order of the schema.

    A default is not filled in beside the key that it gives way to (`x-unless`).
    """
    return dict(_filled(data, resolved(schema())))


def _filled(value: Any, part: Schema) -> Any:
    if isinstance(value, list) and isinstance(part.get("items"), dict):
        return [_filled(entry, resolved(part["items"])) for entry in value]
    if not isinstance(value, dict):
        return value
    if "properties" not in part:
        others = part.get("additionalProperties")
        return {name: _filled(each, resolved(others or {})) for name, each in value.items()}
    parts = {name: resolved(inner) for name, inner in part["properties"].items()}
    decided = {name: inner for name, inner in parts.items() if "x-decided-by" in inner}
    defaults = {
        name: inner["default"] for name, inner in decided.items() if inner.get("x-unless") not in value
    }
    values = defaults | value
    return {name: _filled(values[name], inner) for name, inner in parts.items() if name in values}
