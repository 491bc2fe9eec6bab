"""The values that loracook decides where a recipe says nothing; the schema names them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from loracook.schema import Schema, resolved, schema


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """Valid data with loracook's own defaults filled in, its keys in the order of the schema."""
    return dict(_filled(data, resolved(schema())))


def _filled(value: Any, part: Schema) -> Any:
    if isinstance(value, list) and isinstance(part.get("items"), dict):
        return [_filled(entry, resolved(part["items"])) for entry in value]
    if not isinstance(value, dict) or "properties" not in part:
        return value
    parts = {name: resolved(inner) for name, inner in part["properties"].items()}
    decided = {name: deepcopy(inner["default"]) for name, inner in parts.items() if _is_ours(inner)} | value
    return {name: _filled(decided[name], inner) for name, inner in parts.items() if name in decided}


def _is_ours(part: Schema) -> bool:
    return part.get("x-decided-by") == "loracook" and "default" in part
