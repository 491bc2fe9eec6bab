"""The `auto_map` of saved models: it names code that runs for whoever loads them with trust_remote_code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loracook.store.files import write_atomic

KEY = "auto_map"
LARGEST = 32 << 20
"""Bytes of a file of settings; larger ones are vocabularies."""


def leave_out_code(folder: Path, *, exclude: Path) -> None:
    """Rewrite the JSON files below a folder that name code, but not those below `exclude`, without it."""
    for file in sorted(folder.rglob("*.json")):
        if file.is_relative_to(exclude) or not names_code(file):
            continue
        kept = _without(json.loads(file.read_text("utf-8")))
        write_atomic(file, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def names_code(file: Path) -> bool:
    """Whether a file is JSON that names code."""
    if file.suffix != ".json" or not file.is_file() or file.stat().st_size > LARGEST:
        return False
    try:
        return any(_names(json.loads(file.read_text("utf-8"))))
    except (ValueError, RecursionError):  # nobody can load it
        return False


def _is_name(key: str, value: Any) -> bool:
    """Whether an entry names code; the number of a word in a vocabulary does not."""
    return key == KEY and not isinstance(value, int)


def _names(data: Any) -> Iterator[bool]:
    rest = [data]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            yield from (True for key, entry in value.items() if _is_name(key, entry))
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(entry) for key, entry in value.items() if not _is_name(key, entry)}
    return [_without(entry) for entry in value] if isinstance(value, list) else value
