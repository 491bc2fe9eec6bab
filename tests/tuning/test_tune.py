"""`loracook tune`: its ladder, its proof, what it keeps and what it writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AttentionInterface

import loracook
from loracook.cli import commands
from loracook.errors import LoracookError, MachineError
from loracook.machine.signals import INTERRUPTED, stopping_on_signals
from loracook.machine.upstream import set_attention_implementation
from loracook.planner import plan
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe, load
from loracook.tuning import answers
from loracook.tuning.bench import Bench
from loracook.tuning.candidates import CHECKPOINTING, OFFLOADING, ROWS, STEPS, Group
from loracook.tuning.measured import PROVEN, Row
from loracook.tuning.tune import Question, Tuned, readied, tune
from tests import processes
from tests.estimate.test_batches import recipe_file

TRAIN = {"max_steps": 6, "per_device_train_batch_size": 2, "activation_checkpointing": False}
FEWER = {ROWS: 1, STEPS: 2}
MODULES = ("lora", "target_modules")
WRONG = {("train", "learning_rate"): 0.5}


def invoked(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, ["tune", *map(str, arguments)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe in float32, where the bound of the losses is the narrow one."""
    file = recipe_file(tmp_path_factory.mktemp("tuned"), TRAIN)
    recipe = json.loads(file.read_text("utf-8"))
    recipe["base_model"]["dtype"], recipe["train"]["bf16"] = "float32", False
    file.write_text(json.dumps(recipe), "utf-8")
    return file


@pytest.fixture(scope="module")
def measured(file: Path, cache: Path) -> tuple[Question, Tuned, list[Row]]:
    """Two settings measured beside the untuned recipe: one that keeps the result, and one that does not."""
    question = Question(load(file), None, 600.0, ())
    whole, _ = readied(question, cache, Silent())
    tried = [
        Group("rows", ({ROWS: 1, STEPS: 2}, {ROWS: 2, STEPS: 1}), ordered=True),
        Group("wrong", (WRONG,)),
        Group("missing", ({MODULES: ["up"]},)),
    ]
    shown = list[Row]()
    tuned = tune(question, whole, tried, cache=cache, progress=Silent(), show=shown.append)
    digest = plan(question.recipe).stages[0].digest
    answers.keep(replace(tuned, best=shown[1]), question, digest, whole=whole, cache=cache)
    return question, tuned, shown


@pytest.mark.slow
def test_a_ladder_has_a_row_for_each_setting_with_what_was_measured(
    measured: tuple[Question, Tuned, list[Row]],
) -> None:
    _, tuned, shown = measured
    assert list(tuned.rows) == shown
    assert [row.setting for row in shown[:2]] == [{}, FEWER]
    missing = [row for row in shown if MODULES in row.setting]  # over whichever setting was faster
    assert missing
    assert all("matches no module" in row.against for row in missing)
    for row in [row for row in shown if row not in missing]:
        assert len(row.trial.losses) == len(row.trial.tokens) == len(row.trial.seconds) > PROVEN
        assert row.trial.peak
        assert row.trial.tokens[:PROVEN] == shown[0].trial.tokens[:PROVEN]
    assert shown[1].difference is not None
    assert shown[1].difference < 1e-5
    assert shown[1].against == ""


@pytest.mark.slow
def test_a_setting_that_changes_the_losses_is_found_out_and_named(
    measured: tuple[Question, Tuned, list[Row]],
) -> None:
    _, tuned, shown = measured
    wrong = [row for row in shown if set(WRONG) <= set(row.setting)]
    assert [row.against for row in wrong] == ["dropped: other losses"] * len(wrong)
    assert wrong
    assert not set(WRONG) & set(tuned.best.setting)


@pytest.mark.slow
def test_a_second_tune_answers_at_once_and_writes_a_recipe_with_the_same_losses(
    file: Path, measured: tuple[Question, Tuned, list[Row]], tmp_path: Path
) -> None:
    result = processes.run("tune", file, "--write", file.with_name("tuned.yaml"), cwd=file.parent)
    assert result.returncode == 0, result.stderr
    assert (
        "learning_rate: 0.5 (dropped: other losses)" in result.stdout
    )  # which no trial of today's would try
    kept = r"\nkept from 20\d\d-\d\d-\d\d \d\d:\d\d, when it was measured with --minutes 10\n"
    assert re.search(kept, result.stdout)
    tuned = load(file.with_name("tuned.yaml"))
    assert {key: tuned["train"][key[1]] for key in FEWER} == FEWER
    text = file.with_name("tuned.yaml").read_text("utf-8")
    assert text.count("\n  # ") == 2
    assert "without it" in text
    losses = [_losses(load(file), tmp_path / "untuned"), _losses(tuned, tmp_path / "tuned")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert str(tuned.origin(ROWS)).startswith(str(file.with_name("tuned.yaml")))
    noted = CliRunner().invoke(commands, ["plan", str(file)]).stdout
    assert "with per_device_train_batch_size: 1, gradient_accumulation_steps: 2; loracook tune" in noted
    as_json = json.loads(invoked(file, "--format", "json").stdout)
    assert [row["setting"] for row in as_json["rows"]][:2] == [{}, answers.sections(FEWER)]
    assert as_json["known"] is True


@pytest.mark.slow
def test_an_answer_that_had_too_little_time_is_not_the_one_for_more(
    measured: tuple[Question, Tuned, list[Row]], cache: Path, tmp_path: Path
) -> None:
    question, tuned, shown = measured
    whole, _ = readied(question, cache, Silent())
    hurried = replace(tuned, best=shown[1], untried=("torch_compile: true",))
    answers.keep(hurried, question, "digest", whole=whole, cache=tmp_path)
    assert answers.known(question, "digest", whole=whole, cache=tmp_path) == replace(hurried, known=True)
    more = replace(question, seconds=question.seconds + 60)
    assert answers.known(more, "digest", whole=whole, cache=tmp_path) is None


@pytest.mark.slow
def test_a_recipe_that_would_change_nothing_is_not_written(
    file: Path,
    measured: tuple[Question, Tuned, list[Row]],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    question, tuned, shown = measured
    whole, _ = readied(question, cache, Silent())
    digest = plan(question.recipe).stages[0].digest
    answers.keep(
        replace(tuned, best=shown[0], gain=None, confirmed=None),
        question,
        digest,
        whole=whole,
        cache=tmp_path,
    )
    monkeypatch.setenv("LORACOOK_CACHE", str(tmp_path))
    result = invoked(file, "--write", file.with_name("same.yaml"))
    assert "your recipe is the fastest that fits, as it is" in result.stdout
    assert result.stderr == f"{file.with_name('same.yaml')} is not written: it would change nothing\n"
    assert not file.with_name("same.yaml").exists()


def _losses(recipe: Recipe, runs: Path) -> list[float]:
    loracook.run(recipe, runs)
    log = next((runs / recipe.name).glob("train-*/log.jsonl")).read_text("utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, log) if "loss" in entry]


@pytest.mark.slow
def test_where_nothing_fits_the_untuned_recipe_alone_is_measured(file: Path) -> None:
    result = processes.run("tune", file, "--memory", "1MB", cwd=file.parent)
    assert result.returncode == MachineError.exit_code
    untuned, *others = result.stdout.split("\n\n")[0].splitlines()[1:]
    assert untuned.endswith("untuned (does not fit)")
    assert others
    assert all("(not tried: " in line for line in others)
    assert "nothing that was measured fits" in result.stdout


def test_a_setting_whose_memory_no_plan_can_tell_does_not_end_the_search(file: Path, cache: Path) -> None:
    def reads_numbers(module: Any, query: torch.Tensor, *_: Any, **__: Any) -> Any:
        return query if query.sum() else None, None

    whole, found = readied(Question(load(file), None, 600.0, ()), cache, Silent())
    AttentionInterface.register("reads_numbers", reads_numbers)
    set_attention_implementation(whole.meta_model.base, "reads_numbers")
    rows = [group for group in found if group.ordered]
    bench = Bench(whole, rows, cache, whole.device.bytes, 0.0, lambda _: None, lambda _: None)
    assert list(bench.guesses()) == [{}]  # the fewer rows of the other guess were planned, too


def test_offloading_is_tried_where_the_plan_says_that_nothing_fits(file: Path, cache: Path) -> None:
    whole, found = readied(Question(load(file), None, 600.0, ()), cache, Silent())
    bench = Bench(whole, found, cache, 1, 0.0, lambda _: None, lambda _: None, longest=1.0)
    kept, offloaded = (bench.measure({CHECKPOINTING: True, OFFLOADING: each}) for each in (False, True))
    assert kept.against.endswith("by the plan")
    assert offloaded.against == "time is up"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--allow", "packing,luck"], "'luck' is unknown"),
        (["--memory", "much"], "'much' is not a memory size"),
        (["--memory", "0GB"], "'0GB' is no memory at all"),
        (["--write", "elsewhere/tuned.yaml"], "relative to its folder"),
        (["--write", "recipe.txt"], "ends in .yaml"),
        (["--write", "recipe.yaml"], "already exists"),
        (["--write", "new.yaml", "--set", "train.seed=1"], "--write conflicts with --set"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    file: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(file.parent)
    result = invoked("recipe.yaml", *options)
    assert isinstance(result.exception, LoracookError)
    assert said in str(result.exception)
    assert "untuned" not in result.output


def trials_of(pid: int) -> list[psutil.Process]:
    """The trials that a process has started; templates are rendered in other processes."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            found += [child] if "loracook.tuning.trial" in child.cmdline() else []
    return found


@pytest.mark.slow
def test_a_signal_ends_the_trial_and_says_what_is_known(file: Path) -> None:
    tuning = processes.start("tune", file, "--set", "train.seed=7", cwd=file.parent)
    until = time.monotonic() + 120
    while not (trials := trials_of(tuning.pid)):
        assert time.monotonic() < until
        time.sleep(0.1)
    tuning.send_signal(signal.SIGINT)
    out, errors = tuning.communicate(60)
    assert tuning.returncode == INTERRUPTED, errors
    assert "nothing was measured" in out
    assert not trials[0].is_running() or trials[0].status() == psutil.STATUS_ZOMBIE


def test_a_signal_while_a_trial_is_being_started_is_not_lost(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        """A process in whose start Ctrl-C is pressed."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signal.SIGINT)

    question, shown = Question(load(file), None, 600.0, ()), list[Row]()
    whole, found = readied(question, cache, Silent())
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with stopping_on_signals():
        tuned = tune(question, whole, found, cache=cache, progress=Silent(), show=shown.append)
    assert tuned.stopped
    assert (tuned.rows, shown) == ((), [])
