"""The checkpoint that a training resumes from: its own newest one, or that of a shorter training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook.errors import LoracookError
from loracook.progress import Progress
from loracook.training.checkpoints import differences, newest_sealed, take_over
from loracook.training.lengthened import Shorter


def resumed(checkpoints: Path, made_by: Mapping[str, Any], progress: Progress) -> Path | None:
    """The checkpoint to resume from, None to start from the beginning.

    Raises:
        LoracookError: resuming would give another result, since something has changed.
    """
    checkpoint, notes = newest_sealed(checkpoints)
    for note in notes:
        progress.note(note)
    if checkpoint is None:
        return None
    if changed := differences(checkpoint, made_by):
        message = f"cannot resume from {checkpoint.name}: {'; '.join(changed)}"
        raise LoracookError(f"{message}; change that back, or remove {checkpoints} to start over")
    progress.note(f"resuming from {checkpoint.name}")
    return checkpoint


def lengthened(
    shorter: Shorter, checkpoints: Path, made_by: Mapping[str, Any], *, progress: Progress
) -> Path | None:
    """The checkpoint of a shorter training to resume from, taken over; None to start from the beginning."""
    progress.note(f"training {shorter}")
    for checkpoint in shorter.checkpoints:
        fault = take_over(checkpoint, checkpoints, made_by)
        if fault is None:
            return resumed(checkpoints, made_by, progress)
        progress.note(f"skipping {checkpoint.name} of {shorter.folder.name}: {fault}")
    return None
