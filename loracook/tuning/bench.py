"""Where settings are measured: each once, in a process of its own, beside the untuned recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from loracook.errors import LoracookError
from loracook.estimate.batches import largest_batch
from loracook.estimate.estimate import Estimate, message_of
from loracook.estimate.fake_step import FakeStepError
from loracook.estimate.memory import Parts, autocast, stage_memory
from loracook.estimate.meta_model import meta_model
from loracook.machine import signals
from loracook.recipe.recipe import Recipe
from loracook.training.memory_check import DOUBT
from loracook.tuning.candidates import (
    ATTENTION,
    CHECKPOINTING,
    KWARGS,
    OFFLOADING,
    PACKING,
    ROWS,
    UNTUNED,
    Group,
    allowed_by,
    changed,
    over,
    text_of,
)
from loracook.tuning.child import tried
from loracook.tuning.measured import BOUND, DROPPED, SHORT_BOUND, Row, Setting, Trial, gain_over, refusal
from loracook.tuning.trial import READ, Job, steps_alone
from loracook.units import size

NEIGHBOURS = 3
"""How many options of an ordered group are tried, about."""
LAST = 3
"""Trials that there has to be time for: one more, and the untuned recipe and the best at the end.

Where nothing fits yet, one is enough."""
COLLAPSED, FULL = 1 / 3, 0.8
"""The gain below which a setting collapses, and the share of memory from which on it is said to spill."""
PATIENCE = 4
"""How many times as long as the untuned recipe's a trial may take."""
IN_FLOAT32: Setting = {
    ("base_model", "dtype"): "float32",
    ("train", "bf16"): False,
    ("train", "fp16"): None,
    ATTENTION: None,
}
"""What makes a recipe's losses exact; FlashAttention has no float32."""


class StoppedTuningError(Exception):
    """A signal came: what is measured by now is all there is."""


@dataclass
class Bench:
    """Measures settings of an estimated recipe within a limit of memory, and until a moment of the clock.

    `show` is told each row of the ladder; `untried` are the settings that there was no time for.
    """

    whole: Estimate
    groups: Sequence[Group]
    cache: Path
    limit: int
    until: float
    show: Callable[[Row], None]
    announce: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    untried: list[Setting] = field(default_factory=list)
    reference: Trial | None = None
    exact: Trial | None = None
    longest: float = 0.0
    start: float = 0.0
    _known: dict[str, Row] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The untuned recipe."""
        return self.whole.recipe

    def measure(self, setting: Setting) -> Row:
        """The row of a setting; raises StoppedTuningError where a signal came."""
        key = json.dumps(sorted((path, repr(value)) for path, value in setting.items()))
        if key not in self._known:
            self._known[key] = self._measured(setting)
        return self._known[key]

    def guesses(self) -> Iterator[Setting]:
        """What the plan takes to be fastest: the most rows that fit, and more that do with checkpointing."""
        rows = next((group.options for group in self.groups if group.ordered), ({},))
        fewer = [option for option in rows if option.get(ROWS, 0) <= self.recipe["train"][ROWS[1]]]
        ways: tuple[Setting, ...] = ({CHECKPOINTING: False, KWARGS: None}, {CHECKPOINTING: True})
        for checkpointing in ways:
            settings = [over(self.recipe, checkpointing, option) for option in fewer]
            if fits := [number for number, setting in enumerate(settings) if self._fits_by_plan(setting)]:
                yield settings[fits[-1]]
                fewer = fewer[fits[-1] + 1 :]

    def _fits_by_plan(self, setting: Setting) -> bool:
        recipe = changed(self.recipe, setting)
        if recipe is None:
            return False
        return not refusal(Trial(peak=sum(self._planned(recipe, setting).values())), self.limit)

    def again(self, setting: Setting) -> Trial:
        """A setting that was measured once more."""
        self.announce(f"once more: {text_of(setting) or UNTUNED}")
        return self._tried(changed(self.recipe, setting) or self.recipe)

    def _measured(self, setting: Setting) -> Row:
        recipe, word = changed(self.recipe, setting), allowed_by(setting, self.groups)
        if recipe is None:
            return Row(setting, Trial(), "contradicts the recipe")
        try:
            parts = self._planned(recipe, setting)
        except LoracookError as error:
            return self._shown(Row(setting, Trial(), message_of(error), allowed=word))
        # The untuned recipe is what losses and gains are measured by, even if it takes more than is allowed.
        room = self.limit if setting else self.whole.device.bytes
        if (planned := sum(parts.values())) > DOUBT * room:
            return self._shown(Row(setting, Trial(), f"not tried: {size(planned)} by the plan", allowed=word))
        trials = LAST if any(not row.against for row in self.rows) else 1
        if self.longest and time.monotonic() + trials * self.longest > self.until:
            self.untried.append(setting)
            return Row(setting, Trial(), "time is up", allowed=word)
        self.announce(f"trial {len(self.rows) + 1}: {text_of(setting) or UNTUNED}")
        trial = self._tried(recipe)
        if "evaluation" in parts and trial.peak is not None:  # which a trial leaves out
            trial = replace(trial, peak=max(trial.peak, planned))
        return self._shown(self._row(setting, trial, word))

    def _shown(self, row: Row) -> Row:
        self.rows.append(row)
        self.show(row)
        return row

    def _row(self, setting: Setting, trial: Trial, word: str) -> Row:
        """A trial beside the first one that ran, which decides what the losses are."""
        against = refusal(trial, self.limit)
        if trial.failure:
            return Row(setting, trial, against, allowed=word)
        if self.reference is None and not word:
            self.reference = trial
        if self.reference is None:
            return Row(setting, trial, against, allowed=word, gain=1.0)
        difference, gain = trial.difference(self.reference), self.gain(self.reference, trial, word)
        rounded = not word and difference > self.bound and gain > 1 and self._differs_by_rounding(trial)
        if not word and difference > self.bound and not rounded:
            against = DROPPED
        if gain < COLLAPSED and not against:
            full = (trial.peak or 0) > FULL * self.whole.device.bytes
            against = f"collapses{': memory is full, and spills' if full else ''}"
        return Row(setting, trial, against, difference, word, gain, rounded)

    def _differs_by_rounding(self, trial: Trial) -> bool:
        """Whether a trial in 16 bits is as near to the losses in float32 as the untuned recipe is."""
        setting = over(self.recipe, IN_FLOAT32)
        recipe = changed(self.recipe, setting)
        if self.bound == BOUND or recipe is None or "quantization" in recipe or self.reference is None:
            return False
        if self.exact is None:
            self.announce(f"in float32: {text_of(setting)}")
            self.exact = self._tried(recipe)
        return trial.is_as_near(self.reference, self.exact)

    def gain(self, untuned: Trial, trial: Trial, word: str) -> float:
        """How many times as fast a run with a trial's setting is; `word` is that of --allow it needs."""
        total = self.whole.steps.total if self.whole.steps else None
        return gain_over(untuned, trial, total, same_rows=not word)

    @property
    def bound(self) -> float:
        """How far losses may differ, relative to them."""
        short = autocast(self.recipe["train"]) is not None
        return SHORT_BOUND if short or self.recipe["base_model"]["dtype"] != "float32" else BOUND

    def _planned(self, recipe: Recipe, setting: Setting) -> Parts:
        """The memory that training is planned to take, by what takes it; nothing where that is not known.

        With offloading, activations that are planned lie in main memory.
        """
        if self.whole.memory is None or recipe["train"].get(OFFLOADING[1]):
            return {}
        base = self.whole.meta_model
        if any(section != "train" for section, _ in setting):
            base = meta_model(recipe, base.folder, base.vocabulary)
        alone = replace(recipe, sections={name: recipe[name] for name in READ if name in recipe})
        batch = largest_batch(recipe, None if PACKING in setting else self.whole.rows)
        try:
            return stage_memory(alone, base, batch, device=self.whole.device.kind).stages["train"]
        except FakeStepError:  # of an attention that reads numbers, for one
            return {}

    def _tried(self, recipe: Recipe) -> Trial:
        """A trial for its share of the time that is left."""
        began = time.monotonic()
        left, first = self.until - began, not self.longest
        share = left / self._trials()
        job = Job(steps_alone(recipe), self.cache, max(share - self.start, 0.0))
        trial = tried(job, max(left, share) if first else max(PATIENCE * self.longest, share))
        if signals.stop_requested():
            raise StoppedTuningError
        taken = time.monotonic() - began
        if first:
            self.longest, self.start = taken, max(taken - sum(trial.seconds), 0.0)
        return trial

    def _trials(self) -> int:
        """About how many trials are still to come."""
        most = (NEIGHBOURS if group.ordered else len(group.options) for group in self.groups)
        return max(sum(most) + LAST - len(self.rows), LAST)
