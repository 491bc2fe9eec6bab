"""Checkpoints that can be trusted: written aside, moved in once complete, and verified by their manifest."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook.errors import MachineError
from loracook.store import files

UNFINISHED = "unfinished"
"""The folder beside the checkpoints that they are written in."""
STATE = "trainer_state.json"
"""The file of transformers' trainer state in a checkpoint."""


def staging_folder(folder: Path) -> Path:
    """The folder to write the checkpoints of `folder` in, cleared of what an interrupted run left there."""
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def final(written: Path) -> Path:
    """Where a checkpoint is moved once it is complete."""
    return written.parent.parent / written.name


def seal(written: Path, made_by: Mapping[str, Any], *, tokens: int) -> None:
    """Sync a checkpoint to disk with a manifest of its files and of what made it, then move it in.

    Args:
        written: the folder of the checkpoint, written aside.
        made_by: what decides the run.
        tokens: the number of tokens trained so far, which TRL does not save.
    """
    files.seal(written, made=made_by, tokens=tokens)
    written.rename(final(written))
    files.sync(final(written).parent)


def verify(checkpoint: Path) -> None:
    """Read a checkpoint back; raises MachineError when it is not what was written."""
    if damage := files.damage(checkpoint):
        raise MachineError(f"{checkpoint} is corrupt: {damage}; use a folder on another disk: --runs DIR")


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, by the step in their names, never by the clock."""
    paths = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    return sorted(paths, key=lambda path: int(path.name.split("-")[-1]), reverse=True)


def newest_name(folder: Path) -> str:
    """The name of the newest checkpoint below `folder` that has a manifest, else ""; verifies nothing."""
    return next((path.name for path in newest_first(folder) if (path / files.MANIFEST).is_file()), "")


def newest_sealed(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `folder` that verifies, and a note on each newer one, now deleted."""
    notes: list[str] = []
    for checkpoint in newest_first(folder):
        damage = files.damage(checkpoint) or _damage_of_best(checkpoint)
        if damage is None:
            return checkpoint, notes
        notes.append(f"skipping {checkpoint.name}: {damage}")
        shutil.rmtree(checkpoint)
    return None, notes


def best(checkpoint: Path) -> Path | None:
    """The best checkpoint as of this one, beside it; the path in its state may be spelt differently."""
    path = json.loads((checkpoint / STATE).read_text("utf-8"))["best_model_checkpoint"]
    return path and checkpoint.with_name(Path(path).name)


def tokens(checkpoint: Path) -> int:
    """The number of tokens trained when a checkpoint was made."""
    return int(files.manifest(checkpoint)["tokens"])


def differences(checkpoint: Path, made_by: Mapping[str, Any]) -> list[str]:
    """What has changed since a checkpoint was made, as in 'torch was 2.12.0, now 2.13.0'."""
    before: Mapping[str, Any] = files.manifest(checkpoint)["made"]
    names = [name for name in {**before, **made_by} if before.get(name) != made_by.get(name)]
    return [f"{name} was {before.get(name)}, now {made_by.get(name)}" for name in names]


def _damage_of_best(checkpoint: Path) -> str | None:
    kept = best(checkpoint) or checkpoint
    damage = files.damage(kept) if kept != checkpoint else None
    return damage and f"its best checkpoint, {kept.name}, is corrupt: {damage}"
