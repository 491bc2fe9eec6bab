"""Checkpoints that can be trusted: written aside, moved in when whole, and held against their manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook.errors import MachineError
from loracook.store import files as disk

UNFINISHED = "unfinished"
"""Beside the checkpoints: the folder that they are written in."""
STATE = "trainer_state.json"
"""In a checkpoint: how far transformers was with it."""


def aside(folder: Path) -> Path:
    """The folder to write the checkpoints of `folder` in, empty of what an earlier try left there."""
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def final(written: Path) -> Path:
    """Where a checkpoint that is written aside will be."""
    return written.parent.parent / written.name


def seal(written: Path, made: Mapping[str, Any], *, tokens: int) -> None:
    """Bring a checkpoint to the disk with a manifest of its files and of what made it, then move it in.

    Args:
        written: the folder of the checkpoint, written aside.
        made: what decides the run.
        tokens: how many were trained so far, which TRL does not keep.
    """
    disk.seal(written, made=made, tokens=tokens)
    written.rename(final(written))
    disk.sync(final(written).parent)


def prove(checkpoint: Path) -> None:
    """Read a checkpoint back; raises MachineError when it is not what was written."""
    if damage := disk.damage(checkpoint):
        raise MachineError(
            f"{checkpoint} cannot be trusted: {damage}; choose a folder on another disk with --runs"
        )


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, by the step in their names, never by the clock."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split("-")[-1]), reverse=True)


def newest_sealed(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `folder` that verifies, and a sentence on each newer one, now removed."""
    dropped: list[str] = []
    for checkpoint in newest_first(folder):
        damage = disk.damage(checkpoint) or _damage_of_best(checkpoint)
        if damage is None:
            return checkpoint, dropped
        dropped.append(f"{checkpoint.name} is not used: {damage}")
        shutil.rmtree(checkpoint)
    return None, dropped


def best(checkpoint: Path) -> Path | None:
    """The best checkpoint as of this one, beside it: its state holds a path as it was spelt back then."""
    named = json.loads((checkpoint / STATE).read_text("utf-8"))["best_model_checkpoint"]
    return named and checkpoint.with_name(Path(named).name)


def _damage_of_best(checkpoint: Path) -> str | None:
    kept = best(checkpoint) or checkpoint
    damage = disk.damage(kept) if kept != checkpoint else None
    return damage and f"{kept.name}, its best, cannot be trusted: {damage}"


def tokens(checkpoint: Path) -> int:
    """How many tokens were trained when a checkpoint was made."""
    return int(disk.manifest(checkpoint)["tokens"])


def differences(checkpoint: Path, made: Mapping[str, Any]) -> list[str]:
    """What made a checkpoint and is not so today, as in 'torch was 2.12.0, now 2.13.0'."""
    before: Mapping[str, Any] = disk.manifest(checkpoint)["made"]
    names = [name for name in {**before, **made} if before.get(name) != made.get(name)]
    return [f"{name} was {before.get(name)}, now {made.get(name)}" for name in names]
