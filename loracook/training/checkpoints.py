"""Checkpoints that can be trusted: written aside, moved in once complete, and verified by their manifest."""

import itertools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook.errors import MachineError, shorten
from loracook.store import files
from loracook.store.read_back import NUMBER, check_shape, read_json

UNFINISHED = "unfinished"
"""The folder beside the checkpoints that they are written in, and moved to before they are deleted."""
STATE = "trainer_state.json"
"""The file of transformers' trainer state in a checkpoint."""
NAME = re.compile(r"checkpoint-([1-9][0-9]{0,17})")
"""The name of a checkpoint, with the number of its step."""
MADE_BY = {"made": {str: str | NUMBER | None}, "tokens": int}
TRAINED = {"global_step": int, "max_steps": int, "best_model_checkpoint": str | None}


def staging_folder(folder: Path) -> Path:
    """The folder to write the checkpoints of `folder` in, cleared of what an interrupted run left there."""
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def final(written: Path) -> Path:
    """Where a checkpoint is moved once it is complete."""
    return written.parent.parent / written.name


def seal(written: Path, made_by: Mapping[str, Any], *, tokens: int, **facts: str) -> None:
    """Sync a checkpoint to disk with a manifest of its files and of what made it, then move it in.

    Args:
        written: the folder of the checkpoint, written aside.
        made_by: what decides the run.
        tokens: the number of tokens trained so far, which TRL does not save.
        facts: what else the manifest is to state.
    """
    files.seal(written, made=made_by, tokens=tokens, **facts)
    written.rename(final(written))
    files.sync(final(written).parent)


def take_over(checkpoint: Path, folder: Path, made_by: Mapping[str, Any]) -> str | None:
    """Copy a checkpoint of a shorter training below `folder`, or say why it cannot be resumed from."""
    written = staging_folder(folder) / checkpoint.name
    shutil.copytree(checkpoint, written)
    if fault := damage(written):
        return fault
    sealed_as = files.manifest(written)
    made = sealed_as["made"]
    same = {**made_by, "recipe": made.get("recipe")}
    if made.get("rows") == made_by.get("rows"):  # each may have its part of them
        same["data"] = made.get("data")
    if changed := differences(written, same):
        return "; ".join(changed)
    (written / files.MANIFEST).unlink()
    seal(written, made_by, tokens=sealed_as["tokens"], taken_from=checkpoint.parent.parent.name)
    return None


def taken_from(checkpoint: Path) -> str | None:
    """The name of the folder of the shorter training that a checkpoint was taken over from."""
    return files.manifest(checkpoint).get("taken_from")


def verify(checkpoint: Path) -> None:
    """Read a checkpoint back; raises MachineError when it is not what was written."""
    if fault := damage(checkpoint):
        raise MachineError(f"{checkpoint} is corrupt: {fault}; use a folder on another disk: --runs DIR")


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, by the step in their names, never by the clock."""
    paths = [path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(paths, key=step, reverse=True)


def sealed(folder: Path) -> list[Path]:
    """The checkpoints below `folder` that a run has sealed, the newest first; verifies no file of them."""
    return [path for path in newest_first(folder) if _is_sealed(path)]


def newest_name(folder: Path) -> str:
    """The name of the newest checkpoint below `folder` that has a manifest, else ""; verifies nothing."""
    return next((path.name for path in newest_first(folder) if (path / files.MANIFEST).is_file()), "")


def newest_sealed(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `folder` that verifies, and a note on each newer one, now moved aside."""
    notes: list[str] = []
    for checkpoint in newest_first(folder):
        fault = damage(checkpoint) or _damage_of_best(checkpoint)
        if fault is None:
            return checkpoint, notes
        notes.append(skip(checkpoint, fault))
    return None, notes


def skip(checkpoint: Path, fault: str) -> str:
    """Move a checkpoint aside, so that it is none, and say so; it is not ours to delete."""
    names = (f"skipped-{number}-{checkpoint.name}" for number in itertools.count(1))
    aside = next(path for path in map(checkpoint.with_name, names) if not path.exists())
    checkpoint.rename(aside)
    return f"skipping {checkpoint.name}: {fault}; it is now {aside.name}"


def rotate(folder: Path, limit: int, best: Path | None) -> None:
    """Delete the oldest sealed checkpoints below `folder` beyond the limit, but not the newest and the best.

    Each is moved aside first, so that a kill leaves no half of one.
    """
    ours = sealed(folder)
    spare = [path for path in ours[1:] if best is None or path.name != best.name]
    kept = max(limit - (len(ours) - len(spare)), 0)
    (folder / UNFINISHED).mkdir(exist_ok=True)
    for checkpoint in reversed(spare[kept:]):
        aside = folder / UNFINISHED / f"old-{checkpoint.name}"
        checkpoint.rename(aside)
        files.sync(folder)
        shutil.rmtree(aside)


def best(checkpoint: Path) -> Path | None:
    """The best checkpoint as of this one, beside it; the path in its state may be spelt differently."""
    path = read_json(checkpoint / STATE, TRAINED)["best_model_checkpoint"]
    return path and checkpoint.with_name(Path(path).name)


def is_last(checkpoint: Path) -> bool:
    """Whether training ended with this checkpoint; that of a shorter one has more steps to go."""
    return not taken_from(checkpoint) and step(checkpoint) >= int(
        read_json(checkpoint / STATE, TRAINED)["max_steps"]
    )


def tokens(checkpoint: Path) -> int:
    """The number of tokens trained when a checkpoint was made."""
    return int(files.manifest(checkpoint)["tokens"])


def differences(checkpoint: Path, made_by: Mapping[str, Any]) -> list[str]:
    """What has changed since a checkpoint was made, as in 'torch was 2.12.0, now 2.13.0'."""
    before: Mapping[str, Any] = files.manifest(checkpoint)["made"]
    names = [name for name in {**before, **made_by} if before.get(name) != made_by.get(name)]
    names = [name for name in names if name != "rows"]  # whose content is "data"
    return [shorten(f"{name} was {before.get(name)}, now {made_by.get(name)}", 160) for name in names]


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint is not what its name and its manifest say, or None when it is."""
    if fault := files.damage(checkpoint):
        return fault
    manifest = files.manifest(checkpoint)
    try:
        check_shape(manifest, MADE_BY)
    except ValueError:
        return f"{files.MANIFEST} is corrupt"
    there = {path.relative_to(checkpoint) for path in checkpoint.rglob("*")}
    listed = {Path(name) for name in (files.MANIFEST, *manifest["files"])}
    if more := there - listed.union(*(path.parents for path in listed)):
        return f"{min(more)} is not part of it"
    try:
        state = read_json(checkpoint / STATE, TRAINED)
    except (OSError, ValueError):
        return f"{STATE} is corrupt"
    named = state["best_model_checkpoint"]
    if state["global_step"] != step(checkpoint) or not (named is None or NAME.fullmatch(Path(named).name)):
        return f"{STATE} is of another checkpoint"
    return None


def _damage_of_best(checkpoint: Path) -> str | None:
    kept = best(checkpoint) or checkpoint
    fault = damage(kept) if kept != checkpoint else None
    return fault and f"its best checkpoint, {kept.name}, is corrupt: {fault}"


def _is_sealed(checkpoint: Path) -> bool:
    try:
        check_shape(files.manifest(checkpoint), MADE_BY)
    except (OSError, ValueError):
        return False
    return True


def step(checkpoint: Path) -> int:
    """The step after which a checkpoint was made, by its name."""
    return int(checkpoint.name.rpartition("-")[2])
