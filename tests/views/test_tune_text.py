"""The ladder of a tuning and its answer, as a golden text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loracook.recipe.recipe import load
from loracook.tuning.answers import as_json, from_json
from loracook.tuning.candidates import CHECKPOINTING, KWARGS, PACKING, ROWS, STEPS
from loracook.tuning.measured import OTHER, Row, Setting, Trial
from loracook.tuning.tune import Tuned
from loracook.views.tune_text import HEAD, end_lines, recipe_text, row_line
from tests.estimate.test_batches import recipe_file
from tests.views.test_terminal_widths import golden

MIB = 1 << 20
SECOND: Setting = {CHECKPOINTING: True, KWARGS: {"every_n_layers": 2}}
BEST: Setting = {**SECOND, ROWS: 1, STEPS: 4}


def trial(speed: float, peak: int) -> Trial:
    """A trial of five steps of 900 tokens, a third of them in the loss."""
    return Trial((2.5,) * 5, (900,) * 5, (900 / speed,) * 5, 1 / 3, peak * MIB)


ROWS_OF_THE_LADDER = (
    Row({}, trial(200, 4200), difference=0.0, gain=1.0),
    Row({CHECKPOINTING: False}, Trial(), "not tried: 9.31 GiB by the plan"),
    Row(SECOND, trial(230, 3100), difference=0.0, gain=1.15),
    Row(BEST, trial(290, 1200), difference=0.0021, gain=1.45),
    Row({("train", "padding_free"): True}, trial(250, 3300), "dropped: other losses", OTHER, gain=1.25),
    Row({("base_model", "attn_implementation"): "eager"}, Trial(failure="out of memory"), "out of memory"),
    Row({PACKING: True}, trial(320, 3900), "", 0.21, "packing", 1.6),
)
TUNED = Tuned(
    rows=ROWS_OF_THE_LADDER,
    best=ROWS_OF_THE_LADDER[3],
    gain=1.6,
    again=trial(180, 4200),
    confirmed=trial(288, 1200),
    device="this machine's CPU",
    kind="cpu",
    limit=8 << 30,
    load=0.0,
    seconds=180.0,
    when="2026-11-29 23:36",
    longest=17.3,
    untried=("optim: adamw_torch_fused", "torch_compile: true"),
)


def test_the_ladder_reads_as_in_the_golden_file(tmp_path: Path) -> None:
    recipe = load(recipe_file(tmp_path, {"max_steps": 6, "per_device_train_batch_size": 4}))
    lines = [HEAD, *map(row_line, TUNED.rows), "", *end_lines(TUNED), "", recipe_text(TUNED, recipe)]
    text = "\n".join(line.rstrip() for line in lines)
    assert text == golden("tune.txt", text)


def test_an_answer_is_the_same_once_it_was_kept() -> None:
    assert from_json(as_json(TUNED)) == TUNED


@pytest.mark.parametrize(
    ("tuned", "said"),
    [
        (replace(TUNED, rows=(), best=Row({}, Trial(), "stopped"), stopped=True), "nothing was measured"),
        (replace(TUNED, rows=ROWS_OF_THE_LADDER[:1], best=ROWS_OF_THE_LADDER[0]), "nothing was measured beside your recipe as it is"),
        (replace(TUNED, best=ROWS_OF_THE_LADDER[0]), "your recipe is the fastest of what was measured, as it is"),
        (replace(TUNED, best=ROWS_OF_THE_LADDER[0], untried=()), "your recipe is the fastest that fits, as it is"),
        (replace(TUNED, best=ROWS_OF_THE_LADDER[5], untried=()), "nothing that was measured fits"),
    ],
)  # fmt: skip
def test_no_more_is_said_than_was_measured(tuned: Tuned, said: str) -> None:
    assert list(end_lines(tuned))[-1] == said


def test_the_fastest_is_held_against_its_own_first_trial_alone() -> None:
    steady = replace(TUNED, again=trial(200, 4200))
    assert steady.best.setting == BEST
    assert steady.doubts == []
    (said,) = replace(steady, confirmed=trial(203, 1200)).doubts
    assert said.startswith("the fastest was 30% slower at the end than at first")
    assert replace(steady, best=ROWS_OF_THE_LADDER[0]).doubts == []
