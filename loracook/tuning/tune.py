"""Tuning a recipe: what is tried in which order, and what is found."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loracook import model
from loracook.estimate.estimate import Estimate, estimate
from loracook.estimate.rows import prepared_stats
from loracook.machine import signals, upstream
from loracook.machine.devices import device_here
from loracook.progress import Progress
from loracook.recipe.derived import first_rows
from loracook.recipe.recipe import Recipe
from loracook.training.trainer import read_inputs
from loracook.tuning.bench import Bench, StoppedTuningError
from loracook.tuning.candidates import Group, groups, text_of
from loracook.tuning.child import STOPPING
from loracook.tuning.measured import Row, Trial
from loracook.tuning.search import fastest

BUSY = 0.25
"""The load of each core, before anything is measured, from which others are said to take a share."""
DRIFT = 0.05
"""How much the untuned recipe may be faster or slower at the end than at the beginning."""


@dataclass(frozen=True)
class Tuned:
    """What was measured of a recipe: the rows of the ladder, the untuned recipe first, and the best of them.

    `gain` says how many times as fast a run with that one is as the untuned recipe, as measured side by side
    at the end, if it was: `again` and `confirmed` are those two trials. `limit` are the bytes that could be
    used on the `device`, `load` that of the machine before; `longest` are the seconds of the longest trial,
    `untried` the settings that there was no time for in so many `seconds`, as text; `when` is the day and the
    minute of the end; `stopped` says that a signal came, `known` that this is a kept answer.
    """

    rows: tuple[Row, ...]
    best: Row
    gain: float | None
    again: Trial | None
    confirmed: Trial | None
    device: str
    kind: str
    limit: int
    load: float
    seconds: float
    when: str
    longest: float = 0.0
    untried: tuple[str, ...] = ()
    stopped: bool = False
    known: bool = False

    @property
    def is_partial(self) -> bool:
        """Whether settings are left that would have been tried."""
        return self.stopped or bool(self.untried)

    @property
    def has_compared(self) -> bool:
        """Whether anything was measured beside the untuned recipe."""
        return any(row.setting and row.trial.seconds for row in self.rows)

    @property
    def minutes_for_all(self) -> int:
        """About how many minutes it takes to try the rest as well."""
        return math.ceil((self.seconds + self.longest * len(self.untried)) / 60)

    @property
    def drift(self) -> float | None:
        """How much faster the untuned recipe was at the end, relative to the beginning; None if not known."""
        return drift_of(self.rows[0].trial, self.again) if self.rows else None

    @property
    def doubts(self) -> list[str]:
        """What else the machine did, in sentences; empty where nothing was noticed."""
        cores, said = os.cpu_count() or 1, []
        if self.load > BUSY * cores:
            said.append(
                f"other programs were running before the first trial: load {self.load:.1f} on {cores} cores"
            )
        drifts = {"the untuned recipe": self.drift}
        if self.best.setting:  # else what was confirmed is another setting, whose gain was not sure
            drifts["the fastest"] = drift_of(self.best.trial, self.confirmed)
        changes = " and ".join(
            _changes(name, drift or 0) for name, drift in drifts.items() if _is_large(drift)
        )
        if changes:
            said.append(
                f"{changes} at the end than at first: smaller gains count for nothing; "
                "close other programs and tune again with a larger --minutes"
            )
        return said


def _is_large(drift: float | None) -> bool:
    return abs(drift or 0) > DRIFT


def _changes(name: str, drift: float) -> str:
    return f"{name} was {abs(drift):.0%} {'faster' if drift > 0 else 'slower'}"


def drift_of(first: Trial, again: Trial | None) -> float | None:
    """How much faster a second trial of the same setting was, relative to the first; None if not known."""
    if again is None or not again.seconds or not first.seconds:
        return None
    steps = min(len(again.seconds), len(first.seconds))
    return again.speed(steps) / max(first.speed(steps), 1e-9) - 1


def is_sure(gain: float, drift: float | None) -> bool:
    """Whether a gain is more than what the machine did beside: a setting may only look faster meanwhile."""
    return gain > 1 + (abs(drift or 0) if _is_large(drift) else 0)


@dataclass(frozen=True)
class Question:
    """What is to be found out: the fastest settings of a recipe that fit in `memory` bytes (None: in what is
    free), in so many seconds, with what the words of --allow let be tried.
    """

    recipe: Recipe
    memory: int | None
    seconds: float
    allowed: tuple[str, ...]


def readied(question: Question, cache: Path, progress: Progress) -> tuple[Estimate, list[Group]]:
    """The estimate of a recipe whose weights and rows are in the cache, and what is to be tried.

    Raises:
        LoracookError: a run of it would be refused.
    """
    recipe = question.recipe
    inputs = read_inputs(recipe, cache, progress, first=first_rows(recipe.sections))
    rows, device = prepared_stats(recipe, inputs.rows), device_here()
    model.fetch(recipe, cache)
    found = groups(
        recipe,
        device=device.kind,
        attention=upstream.attention_implementation(inputs.meta_model.base),
        random=inputs.draws_random_numbers,
        allowed=question.allowed,
    )
    return estimate(recipe, inputs.meta_model, rows, device=device), found


def tune(
    question: Question,
    whole: Estimate,
    found: Sequence[Group],
    *,
    cache: Path,
    progress: Progress,
    show: Callable[[Row], None],
) -> Tuned:
    """Measure the settings of the groups, and find the fastest that fits.

    Args:
        question: what is to be found out.
        whole: the estimate of the untuned recipe.
        found: the groups of settings that are tried.
        cache: the folder of converted models and prepared data.
        progress: shows what is being measured.
        show: is told each row of the ladder.
    """
    load, limit = os.getloadavg()[0], whole.device.bytes if question.memory is None else question.memory

    def announce(trial: str) -> None:
        progress.advance(0, 0, trial)

    until = time.monotonic() + question.seconds
    bench = Bench(whole, found, cache, limit, until, show, announce)
    again = confirmed = gain = None
    stopped = False
    try:
        with signals.deferring_first(saying=STOPPING):
            best = fastest(whole.recipe, bench.guesses(), found, measure=bench.measure)
            if best.setting and not best.against:
                again, confirmed = bench.again({}), bench.again(best.setting)
        if again and confirmed:
            gain = bench.gain(again, confirmed, best.allowed) if again.seconds and confirmed.seconds else None
            sure = gain is None or is_sure(gain, drift_of(bench.rows[0].trial, again))
            if not sure and not bench.rows[0].against:
                best, gain = bench.rows[0], None
    except StoppedTuningError:
        best, stopped = max(bench.rows, key=lambda row: row.speed, default=Row({}, Trial(), "stopped")), True
    return Tuned(
        rows=tuple(bench.rows),
        best=best,
        gain=best.gain if gain is None else gain,
        again=again,
        confirmed=confirmed,
        device=whole.device.name,
        kind=whole.device.kind,
        limit=limit,
        load=load,
        seconds=question.seconds,
        longest=bench.longest,
        when=datetime.now().strftime("%Y-%m-%d %H:%M"),
        untried=tuple(map(text_of, bench.untried)),
        stopped=stopped,
    )
