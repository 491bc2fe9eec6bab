"""What a trial of settings has measured, and what is said of it beside the untuned recipe."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Key = tuple[str, str]
"""A section of a recipe, and a key in it."""

Setting = Mapping[Key, Any]
"""What is changed of a recipe; None removes a key."""

PROVEN = 4
"""Optimizer steps whose losses are compared, at least."""
BOUND, SHORT_BOUND = 1e-4, 2e-2
"""How far the losses of these steps may differ, relative to them: in float32, and in dtypes of 16 bits.

Rounding to bfloat16 alone is 4e-3 of a number. Measured for rows one after the other or without padding: up
to 4e-3 with 450 tokens a step of SmolLM2-135M and 6e-3 with 300; 3e-7 in float32 on a tiny model.
"""
DROPPED = "dropped: other losses"
"""Why a setting whose losses differ by more than that cannot be the answer."""
OTHER = 1e9
"""The difference of losses that cannot be compared; JSON has no infinity."""
ENOUGH = 0.03
"""The standard error of the speed, relative to it, at which a trial ends."""
MARGIN = 0.15
"""What has to stay free of the memory, as a share: a run of 12 steps of other lengths took 13 % more on a CPU
than its largest batch and first steps, since its heap is left with holes."""


@dataclass(frozen=True)
class Trial:
    """The first steps of a run with some settings: of each step the loss, the tokens without padding, and the
    seconds; how much of the tokens is in the loss; the peak of memory in bytes, None where it is not known;
    the seconds of a pass before these steps, in which layers are compiled.

    `failure` says why there is nothing to compare.
    """

    losses: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    trained_share: float = 1.0
    peak: int | None = None
    ready: float = 0.0
    failure: str = ""

    def speed(self, steps: int | None = None) -> float:
        """Tokens a second without padding, over so many steps but the first, which also warms up."""
        taken = slice(1 if len(self.seconds) > 1 else 0, steps)
        return sum(self.tokens[taken]) / max(sum(self.seconds[taken]), 1e-9) if self.seconds else 0.0

    def whole_run(self, total: int, measured: int) -> float:
        """The seconds of a run of so many steps, from those that were measured first."""
        later = self.seconds[1:measured] or self.seconds
        return self.ready + self.seconds[0] + (total - 1) * statistics.fmean(later)

    @property
    def spread(self) -> float:
        """The standard error of the speed, relative to it; infinite of fewer than two steps."""
        speeds = [count / max(taken, 1e-9) for count, taken in zip(self.tokens, self.seconds, strict=True)][
            1:
        ]
        if len(speeds) < 2:
            return math.inf
        return statistics.stdev(speeds) / math.sqrt(len(speeds)) / max(statistics.fmean(speeds), 1e-9)

    @staticmethod
    def of(content: Mapping[str, Any]) -> "Trial":
        """The trial that has these plain JSON values."""
        named: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        return Trial(**named)

    def difference(self, other: "Trial") -> float:
        """How far the first losses differ from another trial's, relative to them; OTHER for other rows."""
        count = min(len(self.losses), len(other.losses))
        if not count or self.tokens[:count] != other.tokens[:count]:
            return OTHER
        pairs = zip(self.losses[:count], other.losses[:count], strict=True)
        largest = max(abs(one - two) / max(abs(two), 1e-9) for one, two in pairs)
        return OTHER if math.isnan(largest) else largest

    def is_as_near(self, other: "Trial", exact: "Trial") -> bool:
        """Whether the losses are as near to those of an exact trial as another trial's are."""
        count = min(len(trial.losses) for trial in (self, other, exact))
        first = replace(exact, losses=exact.losses[:count], tokens=exact.tokens[:count])
        return count > 0 and self.difference(first) <= other.difference(first) < OTHER


def gain_over(untuned: Trial, trial: Trial, total: int | None, *, same_rows: bool) -> float:
    """How many times as fast a run is as the untuned one.

    Where steps take the same rows, that is of a run of `total` steps, which pays for getting ready as well.
    """
    if not same_rows or total is None:
        return trial.speed() / max(untuned.speed(), 1e-9)
    count = min(len(trial.seconds), len(untuned.seconds))
    whole, tuned = (one.whole_run(total, count) for one in (untuned, trial))
    return whole / max(tuned, 1e-9)


@dataclass(frozen=True)
class Row:
    """A row of the ladder: a setting, its trial, and why it cannot be the answer (empty where it can).

    `difference` is that of its losses from the reference's, None where there is none; `allowed` is the word
    of --allow by which a setting that changes the result was tried; `gain` is over the reference; `rounded`
    says that the losses are as near to those in float32 as the reference's.
    """

    setting: Setting
    trial: Trial
    against: str = ""
    difference: float | None = None
    allowed: str = ""
    gain: float | None = None
    rounded: bool = False

    @property
    def speed(self) -> float:
        """What the search compares: the gain, 0 for a setting that cannot be the answer."""
        return 0.0 if self.against or self.gain is None else self.gain


def refusal(trial: Trial, limit: int) -> str:
    """Why a trial's settings cannot be run in so many bytes of memory; empty where they can."""
    if trial.failure:
        return trial.failure
    if trial.peak is not None and trial.peak * (1 + MARGIN) > limit:
        return "does not fit"
    return ""
