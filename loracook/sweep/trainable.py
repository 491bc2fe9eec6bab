"""A trial as Ray Tune runs it: `loracook run` in a child process for each seed, and what its log says.

Ray demands a subclass, so this module imports Ray at its top and is itself imported once a sweep starts.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import IO, Any

from ray import tune

from loracook.errors import LockedError, LoracookError, clean
from loracook.planner import Plan, plan
from loracook.report.curves import is_finite, read_log
from loracook.store.lock import refuse_locked
from loracook.sweep.file import Sweep
from loracook.sweep.measured import logged, value_of
from loracook.sweep.points import Point, key, suggested
from loracook.sweep.table import FAILED, FINISHED, Row

CHILD = "loracook.cli.sweep_trial"
"""Runs a command of loracook, and asks it to stop when its standard input ends."""
PATIENCE = 0.5
"""Seconds after which Ray is told that there is nothing new, so that it can end the trial."""
VALUE, LOSS, STEP, POINT = "value", "loss", "step", "point"
NEWS: dict[str, Any] = {VALUE: math.nan}
"""A result that says nothing new; Optuna requires the metric in each."""


@dataclass(frozen=True)
class Job:
    """What is the same for all trials: the sweep, the folders of runs and commands, CPU cores and GPUs, and
    the trials that are settled, by the text of their points.
    """

    sweep: Sweep
    runs: Path
    folder: Path
    cpus: int
    gpus: int
    settled: Mapping[str, Row]


class Trial(tune.Trainable):  # type: ignore[misc, unused-ignore]
    """One point of a sweep."""

    def setup(self, config: dict[str, Any], job: Job) -> None:
        """Begin with the first seed."""
        self.job = job
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Be the trial of another point, in the same process of Ray's."""
        self.cleanup()
        self.results = self._results(point_of(self.job.sweep, new_config))
        return True

    def step(self) -> dict[str, Any]:
        """The next entry of the log, the end of the trial, or that there is nothing new."""
        return next(self.results)

    def cleanup(self) -> None:
        """Ask the child to stop, and wait until it has saved its checkpoint."""
        if results := getattr(self, "results", None):
            results.close()

    def _results(self, point: Point) -> Iterator[dict[str, Any]]:
        job, row = self.job, self.job.settled.get(key(point))
        if row:
            yield from _replayed(job, row)
            yield {"done": True, VALUE: math.nan if row.value is None else row.value, "state": row.state}
        values: list[float] = []
        try:
            for seed in job.sweep.seeds:
                yield from _run(job, point, seed)
                values.append(value_of(plan(job.sweep.load_run(point, seed), job.runs), job.sweep.metric))
        except LoracookError as error:
            reason = clean(str(error)).partition("\n")[0]
            yield {**NEWS, "done": True, "state": FAILED, "reason": reason, "code": error.exit_code}
        yield {"done": True, VALUE: fmean(values), "state": FINISHED, "values": values}


def point_of(sweep: Sweep, config: Mapping[str, Any]) -> Point:
    """The point that Ray's configuration of a trial stands for."""
    given: Point | None = config.get(POINT)
    return suggested(sweep.parameters, config) if given is None else given


def _run(job: Job, point: Point, seed: int | None) -> Iterator[dict[str, Any]]:
    """What a run logs, to its end; only the first seed's losses are for early stopping.

    Raises:
        LoracookError: it failed, with its last words and exit code.
    """
    recipe = job.sweep.load_run(point, seed)
    planned = plan(recipe, job.runs)
    if not planned.to_do:
        return
    yield from _waited_for(planned.folder)
    compared = seed == job.sweep.seeds[0]
    follow, told = _log(planned), 0
    with tempfile.TemporaryFile() as errors, _child(job, job.sweep.overrides(point, seed), errors) as child:
        while child.poll() is None:
            for entry in _entries(follow, after=told) if compared else ():
                told = entry[STEP]
                yield NEWS | entry
            yield NEWS
            with suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
        if child.returncode:
            error = LoracookError(_last_line(errors) or f"ended with exit code {child.returncode}")
            error.exit_code = child.returncode
            raise error


def _replayed(job: Job, row: Row) -> Iterator[dict[str, Any]]:
    """What a settled trial had logged: those that still run are compared with it."""
    if "early_stop" in job.sweep.data:
        planned = plan(job.sweep.load_run(row.point, job.sweep.seeds[0]), job.runs)
        for entry in _entries(_log(planned), after=0):
            if row.state == FINISHED or entry[STEP] <= row.step:
                yield NEWS | entry | ({} if row.value is None else {VALUE: row.value})


def _waited_for(run: Path) -> Iterator[dict[str, Any]]:
    """Wait for a run that is still saving its checkpoint, as after a sweep that was killed."""
    while True:
        try:
            return refuse_locked(run)
        except LockedError:
            yield NEWS
            time.sleep(PATIENCE)


@contextmanager
def _child(job: Job, overrides: tuple[str, ...], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The command of a run; it is asked to stop as the block ends, and waited for."""
    recipe = job.sweep.recipe
    options = (
        *(f"--set={text}" for text in overrides),
        *(f"--allow-path={path}" for path in recipe.allowed.paths),
        *(f"--allow-code={name}" for name in sorted(recipe.allowed.code)),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", CHILD, "run", str(recipe.file), f"--runs={job.runs}", *options],
        cwd=job.folder,
        env=environment(job.cpus, job.gpus),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )
    with process:  # closes its standard input
        yield process


def environment(cpus: int, gpus: int) -> dict[str, str]:
    """Ours for a trial with so many CPU cores and GPUs; Ray 2.60 hides no GPU from one that has none."""
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return os.environ | {"OMP_NUM_THREADS": str(cpus)} | hidden


def _log(planned: Plan) -> tuple[Path, str]:
    return planned.stages[0].folder / "log.jsonl", logged(dict(planned.recipe.sections))


def _entries(log: tuple[Path, str], *, after: int) -> list[dict[str, Any]]:
    """Step and loss of what has been logged after a step."""
    file, name = log
    try:
        entries = read_log(file)
    except (OSError, ValueError):  # not there yet, or being started anew
        return []
    return [
        {STEP: entry["step"], LOSS: entry[name]}
        for entry in entries
        if entry["step"] > after and is_finite(entry.get(name))
    ]


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return clean(lines[-1]) if lines else ""
