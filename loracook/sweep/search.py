"""A sweep carried out by Ray Tune: which trials run when, and what becomes of them.

Ray demands subclasses, so this module imports Ray at its top and is itself imported once a sweep starts.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from loracook.errors import StoppedError
from loracook.machine import signals
from loracook.store.lock import is_locked
from loracook.sweep.local_ray import default_gpus, started
from loracook.sweep.points import as_suggestion, key
from loracook.sweep.table import ENDED, FAILED, RUNNING, STOPPED, WAITING, Row, Table, finished
from loracook.sweep.trainable import LOSS, POINT, STEP, VALUE, Job, Trial, point_of

RAY = "ray"
"""The folder in that of a sweep which is Ray's own while it runs."""
POLL = 0.2
UNREACHED = 10**9
"""Steps that no training has: ASHA ends trials by their losses alone."""
REDUCTION = 3
Told = Callable[[int, Row], None]


def carry_out(table: Table, *, cpus: int, gpus: int | None, told: Told) -> None:
    """Run the trials of a sweep that are not settled.

    Args:
        table: the trials so far; it and its file are kept up to date.
        cpus: CPU cores of one trial.
        gpus: GPUs of one trial, None for one where the cluster has any.
        told: called with the number and row of each trial that is started or settled.

    Raises:
        StoppedError: a signal came; every trial has left its checkpoint.
    """
    sweep = table.sweep
    settled = {key(row.point): row for row in table.rows if row.settled}
    with signals.deferring_first(), started(), _storage(table.folder) as storage:
        own = default_gpus() if gpus is None else gpus
        job = Job(sweep, table.runs.absolute(), Path.cwd(), cpus, own, settled)
        trainable = tune.with_resources(tune.with_parameters(Trial, job=job), {"cpu": cpus, "gpu": own})
        keeper = Keeper(table, told)
        tuner = tune.Tuner(
            trainable,
            param_space={} if sweep.data["method"] == "bayes" else _listed(table),
            tune_config=tune.TuneConfig(reuse_actors=True, **_method(table)),
            run_config=tune.RunConfig(
                storage_path=storage,
                verbose=0,
                callbacks=[keeper],
                stop=Stopper(),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()
        _wait_for_checkpoints(table)
    keeper.stop()
    if signals.stop_requested():
        raise signals.stopped_error()
    if any(row.state in (STOPPED, WAITING) for row in table.rows):  # by SIGUSR1, which Tune takes for itself
        raise StoppedError(signals.STOPPED)


def _listed(table: Table) -> dict[str, Any]:
    return {POINT: tune.grid_search([row.point for row in table.rows])}


def _method(table: Table) -> dict[str, Any]:
    """What Tune is to suggest and to end."""
    sweep, stopping = table.sweep, table.sweep.data.get("early_stop")
    scheduler = FIFOScheduler()
    if stopping:
        scheduler = AsyncHyperBandScheduler(
            time_attr=STEP,
            metric=LOSS,
            mode="min",
            grace_period=stopping["min_steps"],
            reduction_factor=stopping.get("reduction_factor", REDUCTION),
            max_t=UNREACHED,
            stop_last_trials=False,
        )
    if sweep.data["method"] != "bayes":
        return {"scheduler": scheduler}
    return {"scheduler": scheduler, "search_alg": _optuna(table), "num_samples": sweep.trials}


def _optuna(table: Table) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from ray.tune.search.optuna import OptunaSearch

    def distribution(part: Mapping[str, Any]) -> Any:
        if "values" in part:
            return CategoricalDistribution([json.dumps(each) for each in part["values"]])
        if part["distribution"] == "int_uniform":
            return IntDistribution(part["min"], part["max"])
        return FloatDistribution(part["min"], part["max"], log=part["distribution"] == "log_uniform")

    parameters = table.sweep.parameters
    return OptunaSearch(
        {name: distribution(part) for name, part in parameters.items()},
        metric=VALUE,
        mode="min" if table.sweep.lower_is_better else "max",
        points_to_evaluate=[as_suggestion(parameters, row.point) for row in table.rows],
        seed=len(table.rows),  # so that it does not suggest again what it has
    )


class Stopper(tune.Stopper):  # type: ignore[misc, unused-ignore]
    """Ends all trials once a signal has come."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is ended alone."""
        return False

    def stop_all(self) -> bool:
        """Whether a signal has come."""
        return signals.stop_requested()


@dataclass
class Keeper(tune.Callback):  # type: ignore[misc, unused-ignore]
    """Keeps the table up to date with what Ray Tune says of its trials."""

    table: Table
    told: Told
    numbers: dict[str, int] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks, and nobody reads that."""
        return {}

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Note that a trial runs; a search suggests new ones."""
        if trial.trial_id in self.numbers:
            return
        rows, point = self.table.rows, point_of(self.table.sweep, trial.config)
        taken = set(self.numbers.values())
        free = (n for n, row in enumerate(rows) if n not in taken and key(row.point) == key(point))
        number = next(free, len(rows))
        if number == len(rows):
            rows.append(Row(point))
        self.numbers[trial.trial_id], self.started[trial.trial_id] = number, time.monotonic()
        if not rows[number].settled:
            self._keep(trial.trial_id, replace(rows[number], state=RUNNING, reason="", code=0))

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Note the step; the end is noted in `on_trial_complete`."""
        number = self.numbers[trial.trial_id]
        if STEP in result and not self.table.rows[number].settled:
            self.table.rows[number] = replace(self.table.rows[number], step=result[STEP])

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Note how a trial has ended."""
        number = self.numbers.get(trial.trial_id)
        if number is None or self.table.rows[number].settled:  # stopped before it began, or before this sweep
            return
        row, result = self._timed(trial.trial_id), trial.last_result
        match result.get("state"):
            case "finished":
                row = finished(row, result["values"])
            case "failed":
                row = replace(row, state=FAILED, reason=result["reason"], code=result["code"])
            case _ if signals.stop_requested():
                return
            case _:
                row = replace(row, state=ENDED)
        self._keep(trial.trial_id, row)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Note that Ray has lost a trial."""
        row = self._timed(trial.trial_id)
        lost = replace(row, state=FAILED, reason="Ray lost its process; log.txt says why", code=3)
        self._keep(trial.trial_id, lost)

    def stop(self) -> None:
        """Note that what still runs was stopped."""
        for trial, number in self.numbers.items():
            if self.table.rows[number].state == RUNNING:
                self._keep(trial, replace(self._timed(trial), state=STOPPED))

    def _timed(self, trial: str) -> Row:
        """The row of a trial with the time that it has taken."""
        row = self.table.rows[self.numbers[trial]]
        return replace(row, seconds=row.seconds + time.monotonic() - self.started[trial])

    def _keep(self, trial: str, row: Row) -> None:
        number = self.numbers[trial]
        self.table.rows[number] = row
        self.table.write()
        self.told(number, row)


@contextmanager
def _storage(folder: Path) -> Iterator[str]:
    """Where Ray writes, on a cluster where all see it; removed at the end, never read."""
    storage = folder.absolute() / RAY
    shutil.rmtree(storage, ignore_errors=True)
    try:
        yield str(storage)
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _wait_for_checkpoints(table: Table) -> None:
    """Wait for the children: Ray gives them a few seconds, and each ends by itself after its step."""
    for name in (name for row in table.rows for name in table.run_names(row)):
        while is_locked(table.runs / name):
            time.sleep(POLL)
