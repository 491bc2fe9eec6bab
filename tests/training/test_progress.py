"""What training shows while it runs: evaluations as they go, their losses as they come, and the time left."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl
from transformers.trainer_callback import DefaultFlowCallback

from loracook.runner import run
from loracook.training.time_left import evaluations_left
from tests.tiny_recipes import twin


@pytest.mark.parametrize("strategy", ["no", "steps", "epoch"])
@pytest.mark.parametrize("every", [1, 3, 4, 20])
@pytest.mark.parametrize("delay", [0, 2, 5])
def test_the_evaluations_that_are_left_are_those_that_transformers_makes(
    strategy: str, every: int, delay: int
) -> None:
    args: Any = SimpleNamespace(
        eval_strategy=strategy,
        eval_delay=delay,
        logging_first_step=False,
        logging_strategy="no",
        save_strategy="no",
    )
    state: Any = SimpleNamespace(max_steps=12, eval_steps=every, num_train_epochs=3, global_step=0, epoch=0.0)
    flow, counted, left = DefaultFlowCallback(), [], []
    for step in range(1, 13):
        state.global_step, state.epoch, control = step, step / 4, TrainerControl()
        left.append(evaluations_left(args, state))
        flow.on_step_end(args, state, control)
        if step % 4 == 0:
            flow.on_epoch_end(args, state, control)
        counted.append(int(control.should_evaluate))
    assert left == [sum(counted[index:]) for index in range(12)]


class Seen(list[str]):
    """Everything that is shown, in order."""

    def begin(self, stage: str) -> None:
        """Not looked at."""

    def end(self, record: dict[str, Any]) -> None:
        """Not looked at."""

    def note(self, text: str) -> None:
        """Keep a sentence."""
        self.append(text)

    def advance(self, done: int, total: int, text: str) -> None:
        """Keep a state."""
        self.append(f"{done}/{total} {text}")


@pytest.mark.slow
def test_a_run_shorter_than_logging_steps_shows_its_losses(tmp_path: Path) -> None:
    training = {
        "logging_steps": 10,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "per_device_eval_batch_size": 3,
    }
    recipe = twin("opt-350m-lora", tmp_path, evaluate=None, train=training)
    seen = Seen()
    record = run(recipe, runs=tmp_path / "runs", progress=seen)["train"]
    shown = [text for text in seen if "evaluating" in text or "eval loss" in text]
    assert shown[:2] == ["1/2 evaluating after step 1", "2/2 evaluating after step 1"]
    assert shown[2].startswith("step 1/2  eval loss ")
    assert shown[3].startswith("2/2 eval loss ")
    assert shown[3].endswith(" left")
    assert shown[-1].startswith("step 2/2  eval loss ")
    (log_file,) = (tmp_path / "runs").glob("*/train-*/log.jsonl")
    log = [json.loads(line) for line in log_file.read_text("utf-8").splitlines()]
    losses = {name: entry[name] for entry in log for name in ("loss", "eval_loss") if name in entry}
    assert record["result"]["losses"] == losses
    assert set(losses) == {"loss", "eval_loss"}
