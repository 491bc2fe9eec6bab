"""What lies in a run folder: trainings, each with the finished stages that were made from it."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loracook.store.lock import LOCK
from loracook.store.record import read_record
from loracook.store.run_folder import LATEST, check_run_folder

STAGE = re.compile(r"([a-z_]+)-([0-9a-f]{8})")
"""The name of a stage's folder: the stage and its digest."""


@dataclass(frozen=True)
class Run:
    """Finished stages of a run folder that belong together: `stages` has the folder of each by its name.

    Its `name` is how it is named below the runs folder: that of the run folder, or for another training than
    the newest one that of its own folder, too, as in soup/train-0123abcd.
    """

    name: str
    folder: Path
    stages: Mapping[str, Path]


def is_run_folder(folder: Path) -> bool:
    """Whether a folder, or what a link leads to, has anything in it that a run makes."""
    names = _names(folder)
    stages = (folder / name for name in names if STAGE.fullmatch(name))
    # A run may be named as a stage's folder is: one of the runs folder, then.
    return not {LOCK, LATEST}.isdisjoint(names) or any(
        {LOCK, LATEST}.isdisjoint(_names(each)) for each in stages
    )


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)
    return []


def with_name(path: Path) -> Path:
    """The same path, ending in a name where it is spelled as . or .."""
    return path.resolve() if path.name in ("", "..") else path


def run_folders(folder: Path) -> list[Path]:
    """The run folders below the folder of all runs, or that folder itself where it is one."""
    if is_run_folder(folder):
        return [with_name(folder)]
    return sorted(path for path in folder.iterdir() if is_run_folder(path))


def stage_folders(run: Path) -> dict[Path, str]:
    """The stage of each folder of a run, finished or not."""
    named = {path: STAGE.fullmatch(path.name) for path in sorted(run.iterdir())}
    return {path: name[1] for path, name in named.items() if name and path.is_dir()}


def newest(run: Path) -> dict[str, Path]:
    """The folder of each stage that `latest` names."""
    links = run / LATEST
    names = sorted(os.listdir(links)) if links.is_dir() else []
    found = {
        name: run / os.readlink(links / name).rpartition("/")[2] for name in names if name.isidentifier()
    }
    return {name: path for name, path in found.items() if path.is_dir()}


def records(run: Path) -> dict[Path, dict[str, Any]]:
    """The record of each finished stage whose record is intact and of this stage."""
    found = {}
    for folder in stage_folders(run):
        with suppress(OSError, ValueError):
            record = read_record(folder)
            if f"{record['stage']}-{record['digest']}" == folder.name:
                found[folder] = record
    return found


def finished_runs(run: Path) -> list[Run]:
    """The runs in a run folder with a finished stage, the newest last: the one that `latest` names.

    Raises:
        MachineError: something in the folder leads elsewhere.
    """
    check_run_folder(run)
    recorded, linked = records(run), set(newest(run).values())
    order = sorted(recorded, key=lambda folder: (folder in linked, recorded[folder]["finished"]))
    groups: dict[str, dict[str, Path]] = {}
    for folder in order:
        groups.setdefault(_start(folder, recorded), {})[recorded[folder]["stage"]] = folder
    # The newest training comes last, even where nothing has been made from it yet.
    ranked = sorted(groups.items(), key=lambda group: (run / group[0] in linked, _last(group[1], order)))
    runs = [Run(f"{run.name}/{start}", run, stages) for start, stages in ranked]
    return [*runs[:-1], *(replace(last, name=run.name) for last in runs[-1:])]


def run_of(stage: Path) -> Run | None:
    """The run that a stage's folder is part of, with that stage in it; None where it is not finished."""
    recorded = records(stage.parent)
    if stage not in recorded:
        return None
    start = _start(stage, recorded)
    for run in finished_runs(stage.parent):
        if stage in run.stages.values():
            return run
        if any(_start(path, recorded) == start for path in run.stages.values()):
            stages = {**run.stages, recorded[stage]["stage"]: stage}
            return Run(f"{stage.parent.name}/{stage.name}", run.folder, stages)
    return None


def _start(folder: Path, recorded: Mapping[Path, Mapping[str, Any]]) -> str:
    """The name of the folder that a stage started from: the earliest one before it."""
    seen = set()  # records may be a stranger's, and name one another
    while folder not in seen and (before := recorded.get(folder, {}).get("before")):
        seen.add(folder)
        folder = folder.parent / next(iter(before))
    return folder.name


def _last(stages: Mapping[str, Path], order: list[Path]) -> int:
    return max(map(order.index, stages.values()))
