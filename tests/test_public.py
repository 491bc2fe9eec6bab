"""The package's public functions: what its namespace shows, and what they hand to the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

import loracook
from tests.tiny_recipes import twin


def test_the_namespace_shows_the_public_names_alone() -> None:
    assert dir(loracook) == sorted([*loracook.__all__, "__version__"])
    assert [name for name in dir(loracook) if not hasattr(loracook, name)] == []


class Steps(TrainerCallback):
    """Counts the optimizer steps of a training."""

    def __init__(self) -> None:
        self.count = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count one."""
        self.count += 1


@pytest.mark.slow
def test_callbacks_see_every_step_of_training(tmp_path: Path) -> None:
    recipe, steps = twin("opt-350m-lora", tmp_path, evaluate=None), Steps()
    record = loracook.run(recipe, tmp_path / "runs", callbacks=[steps])["train"]
    assert steps.count == record["result"]["steps"] == 2
    loracook.run(recipe, tmp_path / "runs", callbacks=[steps])
    assert steps.count == 2


def test_a_trainer_writes_below_the_recipe_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = loracook.trainer(twin("opt-350m-lora", tmp_path, evaluate=None))
    assert trainer.args.output_dir == "runs/opt-350m-lora/trainer/checkpoints"
