"""Walking plain data: every value with its path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loracook.errors import Path


def leaves(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no mapping and no list, with its path, in the order written."""
    if isinstance(data, dict):
        for name, entry in data.items():
            yield from leaves(entry, (*path, name))
    elif isinstance(data, list):
        for index, entry in enumerate(data):
            yield from leaves(entry, (*path, index))
    else:
        yield path, data


def keys(data: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every key of every mapping, in the order written."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, entry in entries:
        if isinstance(name, str):
            yield (*path, name)
        yield from keys(entry, (*path, name))
