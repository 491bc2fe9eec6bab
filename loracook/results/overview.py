"""Every run below a folder: when it was, how it ended, what it reached, and the disk it takes."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from loracook.errors import MachineError
from loracook.evaluation.comparison import ADAPTER, BASE
from loracook.evaluation.gates import unmet
from loracook.recipe.recipe import Recipe
from loracook.report.task_scores import TaskScore, stage_scores
from loracook.results.evaluated import EVALUATE, TASKS
from loracook.results.recorded import recorded
from loracook.stages import STAGES
from loracook.store.lock import is_locked
from loracook.store.read_back import NUMBER
from loracook.store.record import RECORD, own_fault, read_failure, read_metrics, read_record, read_result
from loracook.store.runs import Run, finished_runs, records, run_folders, stage_folders
from loracook.training.checkpoints import newest_name

FIRST = next(iter(STAGES))
"""The stage that every run starts with."""
SIZES_ALONE = 1 << 63
"""A change time that no file has, so that none is read: hashes of many gigabytes are not for a list."""
FINISHED, UNFINISHED, FAILED, RUNNING = "finished", "unfinished", "failed", "running"
GATE, BROKEN = "gate not met", "broken"


@dataclass(frozen=True)
class Overview:
    """A run in a line: `detail` says what is unfinished, not met or broken, or failed and why; `metrics` has
    base and adapter, `losses` those that training ended with, `tasks` the scores of lm-evaluation-harness.
    """

    name: str
    folder: Path
    date: datetime
    outcome: str
    detail: str = ""
    bytes: int = 0
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    tasks: Sequence[TaskScore] = ()


def overviews(runs: Path) -> list[Overview]:
    """The runs below a folder, the newest last; one that is broken is listed with what is wrong."""
    found = [line for folder in run_folders(runs) for line in _lines(folder)]
    return sorted(found, key=lambda line: line.date)


def bytes_below(path: Path) -> int:
    """The size of the files at a path and below it; follows no link."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # a run at work has removed it
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _lines(folder: Path) -> list[Overview]:
    """The runs in a run folder, the one in progress or named by `latest` last."""
    try:
        runs = finished_runs(folder)
        started = [path for path in stage_folders(folder) if path not in records(folder)]
        lines = [_finished(run) for run in runs]
        lines += [_started(path) for path in started if path.name.startswith(f"{FIRST}-")]
        lines = lines or [Overview(folder.name, folder, _written(folder), UNFINISHED, "nothing is finished")]
        lines.sort(key=lambda line: (line.date, line.name == folder.name))
        newer = [line for line in map(_started, started) if line.date > lines[-1].date]
        name = lines[-1].name if any(line.name == folder.name for line in lines) else folder.name
        lines[-1] = replace(lines[-1], name=name, bytes=lines[-1].bytes + _rest(folder, lines))
        if newer and lines[-1].outcome in (FINISHED, GATE):  # a stage after training is under way
            lines[-1] = replace(lines[-1], outcome=newer[-1].outcome, detail=newer[-1].detail)
        if is_locked(folder):
            under_way = lines[-1].detail if lines[-1].outcome == UNFINISHED else ""
            lines[-1] = replace(lines[-1], outcome=RUNNING, detail=under_way)
    except (OSError, ValueError, MachineError) as error:
        return [Overview(folder.name, folder, _written(folder), BROKEN, str(error))]
    return lines


def _rest(folder: Path, lines: list[Overview]) -> int:
    """The bytes of a run folder that are in none of its lines."""
    return bytes_below(folder) - sum(line.bytes for line in lines)


def _finished(run: Run) -> Overview:
    outcome, detail, metrics = FINISHED, "", {}
    losses: dict[str, float] = {}
    tasks: list[TaskScore] = []
    try:
        if fault := next(filter(None, map(_fault, run.stages.values())), None):
            outcome, detail = BROKEN, fault
        if FIRST in run.stages:
            losses = read_result(run.stages[FIRST], {"losses": {str: NUMBER}})["losses"]
        if TASKS in run.stages:
            tasks = stage_scores(run.stages[TASKS])
        if EVALUATE in run.stages:
            measured = read_metrics(run.stages[EVALUATE])
            metrics = {name: (value, measured[ADAPTER][name]) for name, value in measured[BASE].items()}
            if outcome == FINISHED and (gates := _gates(run, measured)):
                outcome, detail = GATE, gates
    except MachineError as error:
        outcome, detail = BROKEN, str(error)
    date = max(map(_finished_at, run.stages.values()))
    size = sum(map(bytes_below, run.stages.values()))
    return Overview(run.name, run.folder, date, outcome, detail, size, metrics, losses, tasks)


def _fault(stage: Path) -> str | None:
    """What is wrong with the files of a finished stage, as far as their sizes tell."""
    fault = own_fault(stage, read_record(stage), since=SIZES_ALONE)
    return fault and f"{stage.name}/{fault}"


def _gates(run: Run, measured: Mapping[str, Any]) -> str:
    """The gates that an evaluation does not meet, unless a stage after it says that they were loosened."""
    names = list(STAGES)
    if any(name in run.stages for name in names[names.index(EVALUATE) + 1 :]):
        return ""
    try:
        recipe = Recipe(run.folder, recorded(run).sections, ())
    except MachineError:  # another version's, or a stranger's; its figures are shown all the same
        return ""
    return "; ".join(f"{problem.path[2]} {problem.message}" for problem in unmet(recipe, measured))


def _started(stage: Path) -> Overview:
    """A stage without an intact record."""
    name, run = stage.name.partition("-")[0], stage.parent
    if (stage / RECORD).exists():
        return Overview(
            f"{run.name}/{stage.name}", run, _written(stage), BROKEN, f"{stage.name}/{RECORD} is corrupt"
        )
    checkpoint, (failure, _) = newest_name(stage / "checkpoints"), read_failure(stage)
    outcome, detail = UNFINISHED, f"{name}, {checkpoint}" if checkpoint else name
    if failure:
        outcome, detail = FAILED, f"{name}: {'; '.join(failure.splitlines())}"
    return Overview(f"{run.name}/{stage.name}", run, _written(stage), outcome, detail, bytes_below(stage))


def _finished_at(stage: Path) -> datetime:
    """When a stage was finished: by its record, or by its files where that states no time."""
    try:
        return datetime.fromisoformat(read_record(stage)["finished"]).astimezone()
    except (ValueError, OverflowError, OSError):
        return _written(stage)


def _written(folder: Path) -> datetime:
    """When the newest thing in a folder was written."""
    paths = [folder, *folder.iterdir()] if folder.is_dir() and not folder.is_symlink() else [folder]
    return datetime.fromtimestamp(max(path.lstat().st_mtime for path in paths)).astimezone()
