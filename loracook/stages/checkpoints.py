"""Checkpoints that can be trusted: written aside, moved in when whole, and held against their manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook.disk import broken_file, file_facts, sync, write_whole
from loracook.errors import MachineError

MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
"""Beside the checkpoints: the folder that they are written in."""


def aside(folder: Path) -> Path:
    """The folder to write the checkpoints of `folder` in, empty of what an earlier try left there."""
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def final(written: Path) -> Path:
    """Where a checkpoint that is written aside will be."""
    return written.parent.parent / written.name


def seal(written: Path, made: Mapping[str, Any]) -> None:
    """Bring a checkpoint to the disk with a manifest of its files and of what made it, then move it in."""
    for path in written.rglob("*"):
        sync(path)
    manifest = {"made": made, "files": file_facts(written)}
    write_whole(written / MANIFEST, json.dumps(manifest, indent=1))
    written.rename(final(written))
    sync(final(written).parent)


def prove(checkpoint: Path) -> None:
    """Read a checkpoint back; raises MachineError when it is not what was written."""
    if fault := _fault(checkpoint):
        raise MachineError(
            f"{checkpoint} cannot be trusted: {fault}; choose a folder on another disk with --runs"
        )


def newest_sealed(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `folder` that verifies, and a sentence on each newer one, now removed.

    Newest goes by the step in the name, never by the clock.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    dropped: list[str] = []
    for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[-1]), reverse=True):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint, dropped
        dropped.append(f"{checkpoint.name} is not used: {fault}")
        shutil.rmtree(checkpoint)
    return None, dropped


def differences(checkpoint: Path, made: Mapping[str, Any]) -> list[str]:
    """What made a checkpoint and is not so today, as in 'torch was 2.12.0, now 2.13.0'."""
    before: Mapping[str, Any] = json.loads((checkpoint / MANIFEST).read_text("utf-8"))["made"]
    names = [name for name in {**before, **made} if before.get(name) != made.get(name)]
    return [f"{name} was {before.get(name)}, now {made.get(name)}" for name in names]


def _fault(checkpoint: Path) -> str | None:
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return "it has no manifest"
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError):
        return f"{MANIFEST} cannot be read"
    broken = broken_file(checkpoint, files)
    return broken and f"{broken} is not as it was written"
