"""A run stops at the limits on rows before it looks for weights."""

from __future__ import annotations

from pathlib import Path

import pytest

import loracook
from tests.cooking import twin


def test_rows_over_a_limit_stop_the_run_before_weights_are_loaded(tmp_path: Path) -> None:
    recipe = twin("llama2-7b-8bit", tmp_path, dataset={"limits": {"truncated": 0}})
    (tmp_path / "model/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(loracook.RecipeError) as caught:
        loracook.run(recipe, tmp_path / "runs")
    said, worst, *_ = caught.value.problems
    assert said.path == worst.path == ("dataset", "limits", "truncated")
    assert said.message.endswith("; raise it or take them out")
    assert worst.message.count("kitchen-train.json") == 3
    assert caught.value.exit_code == 2
    assert not list(tmp_path.glob("runs/*/train-*/record.json"))


def test_evaluation_rows_without_a_prompt_stop_the_run_before_weights_are_loaded(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, evaluate={"rows": 2})  # rows of plain text
    (tmp_path / "model/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(loracook.RecipeError, match=r"evaluate\.rows: no evaluation row has a prompt; write"):
        loracook.run(recipe, tmp_path / "runs")
