"""The values that loracook decides where a recipe says nothing; the schema names them."""

from __future__ import annotations

from typing import Any

from loracook.recipe.schema import Schema, resolved, schema


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """New data with loracook's own defaults filled in, its keys in the order of the schema."""
    return dict(_filled(data, resolved(schema())))


def _filled(value: Any, part: Schema) -> Any:
    if isinstance(value, list) and isinstance(part.get("items"), dict):
        return [_filled(entry, resolved(part["items"])) for entry in value]
    if not isinstance(value, dict) or "properties" not in part:
        return value
    parts = {name: resolved(inner) for name, inner in part["properties"].items()}
    decided = {name: inner["default"] for name, inner in parts.items() if "x-decided-by" in inner} | value
    return {name: _filled(decided[name], inner) for name, inner in parts.items() if name in decided}
