"""What decides a training, and the checkpoint that it resumes from: its own newest, or a shorter one's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook import model
from loracook.errors import LoracookError
from loracook.machine.versions import WEIGHTS, versions
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.store.files import sha256
from loracook.store.release import ADAPTER
from loracook.training import group
from loracook.training.checkpoints import differences, newest_sealed, take_over
from loracook.training.lengthened import Shorter
from loracook.training.trainer import TrainerInputs


def made_by(inputs: TrainerInputs, recipe_digest: str, *, device: str) -> dict[str, Any]:
    """What decides the weights besides the steps taken, for the manifests of checkpoints."""
    return {
        "recipe": recipe_digest,
        "data": inputs.rows.digest,
        "rows": inputs.rows.key,
        "base": inputs.commit,
        **({"tokenizer": inputs.tokenizer_commit} if inputs.tokenizer_commit else {}),
        "device": device,
        "world size": group.size() if inputs.draws_random_numbers else 1,  # else it decides nothing
        "seed": inputs.recipe["train"]["seed"],
        **{name: version for name, version in versions().items() if name in WEIGHTS},
        **start(inputs.recipe),
    }


def start(recipe: Recipe) -> dict[str, str]:
    """The hash of the weights that training starts from, where it starts from an adapter."""
    if "start_from" not in recipe["lora"]:
        return {}
    return {"start_from": sha256(model.start_adapter(recipe) / ADAPTER[1])}


def to_resume_from(
    checkpoints: Path, made_by: Mapping[str, Any], *, shorter: Shorter | None, progress: Progress
) -> Path | None:
    """The checkpoint to resume from, taken over from a shorter training where there is none of its own."""
    checkpoint = resumed(checkpoints, made_by, progress)
    if checkpoint is None and shorter:
        return _lengthened(shorter, checkpoints, made_by, progress=progress)
    return checkpoint


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


def _lengthened(
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
