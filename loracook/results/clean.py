"""What runs no longer need: checkpoints of finished stages, superseded stages, residue, outdated caches.

A run folder may be a stranger's, so only what carries a record or a manifest of ours is removed, and what is
named as we name what is being written.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracook.data.cache import outdated
from loracook.errors import MachineError
from loracook.results.overview import bytes_below
from loracook.store.files import PART, sync
from loracook.store.lock import cause, locked
from loracook.store.record import RECORD, own_fault
from loracook.store.run_folder import LATEST, check_contents, check_run_folder
from loracook.store.runs import newest, records, stage_folders
from loracook.training.checkpoints import UNFINISHED, sealed

CHECKPOINTS = "checkpoints"
ASIDE = re.compile(r"\.(?:[a-z_]+-[0-9a-f]{8}|checkpoint-[0-9]+|unfinished|[0-9a-f]{16})\.part")
"""The name of a folder that was moved aside to be removed."""


@dataclass(frozen=True)
class Spare:
    """A file or folder that could go, its size in bytes, and why."""

    path: Path
    bytes: int
    why: str


def spare_in_run(run: Path) -> list[Spare]:
    """What could go of a run folder; raises MachineError where something in it leads elsewhere."""
    check_run_folder(run)
    return [Spare(path, bytes_below(path), why) for path, why in (*_residue(run), *_unneeded(run))]


def spare_in_cache(cache: Path) -> list[Spare]:
    """The prepared rows in the cache that no run of these versions reads."""
    aside = [path for path in (cache / "data").glob(f".*{PART}") if ASIDE.fullmatch(path.name)]
    found = [*((path, "left behind") for path in aside if path.is_dir())]
    found += [(path, "prepared by other versions") for path in outdated(cache)]
    return [Spare(path, bytes_below(path), why) for path, why in found]


def clean_run(run: Path) -> list[Spare]:
    """Remove what could go of a run folder, and return it.

    Raises:
        LockedError: another process works in it.
        MachineError: something in it leads elsewhere, or cannot be removed.
    """
    check_run_folder(run)
    with locked(run):
        return removed(spare_in_run(run))


def removed(spare: list[Spare]) -> list[Spare]:
    """Remove files and folders, each moved aside first, so that a kill leaves no half of one."""
    for each in spare:
        try:
            _remove(each.path)
        except OSError as error:
            raise MachineError(f"cannot remove '{each.path}': {cause(error)}") from error
    return spare


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    check_contents(path)
    if not ASIDE.fullmatch(path.name):
        path = path.rename(path.with_name(f".{path.name}{PART}"))
        sync(path.parent)
    shutil.rmtree(path)


def _residue(run: Path) -> Iterator[tuple[Path, str]]:
    """What a killed process was writing or removing."""
    stages = list(stage_folders(run))
    for folder in (run, run / LATEST, *stages, *(stage / CHECKPOINTS for stage in stages)):
        for path in sorted(folder.glob(f".*{PART}")):
            if path.is_symlink() or path.is_file() or ASIDE.fullmatch(path.name):
                yield path, "left behind by a run that was killed"


def _unneeded(run: Path) -> Iterator[tuple[Path, str]]:
    recorded = {path: record for path, record in records(run).items() if _verifies(path, record)}
    named = newest(run)
    kept = _with_those_before(set(named.values()), recorded)
    for folder, record in recorded.items():
        by = named.get(record["stage"])
        if folder not in kept and by in recorded and _is_all_ours(folder, record):
            yield folder, f"superseded by {by.name}"
            continue
        if (folder / CHECKPOINTS / UNFINISHED).is_dir():
            yield folder / CHECKPOINTS / UNFINISHED, "left behind by a run that was killed"
        for checkpoint in sealed(folder / CHECKPOINTS):
            yield checkpoint, "checkpoint of a finished stage"


def _verifies(stage: Path, record: Mapping[str, Any]) -> bool:
    written = (stage / RECORD).stat().st_ctime_ns
    return own_fault(stage, record, since=written) is None


def _with_those_before(folders: set[Path], recorded: Mapping[Path, Mapping[str, Any]]) -> set[Path]:
    """Folders of stages with those that they were made from."""
    before = {path.parent / name for path in folders if path in recorded for name in recorded[path]["before"]}
    return folders if before <= folders else _with_those_before(folders | before, recorded)


def _is_all_ours(stage: Path, record: Mapping[str, Any]) -> bool:
    """Whether nothing lies in the folder of a stage but what its record lists, and sealed checkpoints."""
    listed = {stage / name for name in (RECORD, *record["files"])}
    ours = (*sealed(stage / CHECKPOINTS), stage / CHECKPOINTS / UNFINISHED)
    files = (path for path in stage.rglob("*") if not path.is_dir())
    return all(path in listed or any(path.is_relative_to(folder) for folder in ours) for path in files)
