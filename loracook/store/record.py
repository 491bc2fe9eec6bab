"""The record of a finished stage: written last, sealed, and held against what lies in the folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loracook.store.files import broken_file, read_sealed, write_sealed

RECORD = "record.json"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Leave the record in a stage's folder, which makes the stage done."""
    write_sealed(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a finished stage; raises ValueError when it is not as it was written."""
    return read_sealed(folder / RECORD)


def made_of(before: Iterable[Path]) -> dict[str, dict[str, str]]:
    """The hashes of the weights that finished stages left, by their folders' names and the files'."""
    return {folder.name: weights for folder in before if (weights := _weights(folder)) is not None}


def why_not_done(folder: Path, before: Iterable[Path]) -> str | None:
    """Why a stage does not count as done, "" when it simply was not run, None when it is done.

    Sizes are always compared, contents only of what was touched after the record was written: the change
    time cannot be set back, and 14 GB that lie still cost nothing. The stages `before` may have been made
    again since; they only make this one undone when their weights came out otherwise.
    """
    try:
        record = read_record(folder)
        written = (folder / RECORD).stat().st_ctime_ns
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError):
        return f"{RECORD} cannot be read"
    if broken := broken_file(folder, record["files"], since=written):
        return f"{broken} is not as it was written" if (folder / broken).is_file() else f"{broken} is missing"
    other = (name for name, weights in made_of(before).items() if weights != record["before"].get(name))
    return next((f"{name} holds other weights now" for name in other), None)


def _weights(folder: Path) -> dict[str, str] | None:
    try:
        files = read_record(folder)["files"]
    except (OSError, ValueError):
        return None
    return {name: fact["sha256"] for name, fact in files.items() if name.endswith(".safetensors")}
