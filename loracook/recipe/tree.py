"""Walking plain data: every entry with its path."""

from __future__ import annotations

from typing import Any

from loracook.errors import Path


def entries(data: Any) -> list[tuple[Path, Any]]:
    """Every value below the top of the data with its path, in the order written, inner ones after outer."""
    found: list[tuple[Path, Any]] = []
    _collect(data, (), found)
    return found


def _collect(data: Any, path: Path, found: list[tuple[Path, Any]]) -> None:
    named = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in named:
        below = (*path, name)
        found.append((below, value))
        if isinstance(value, dict | list):
            _collect(value, below, found)
