"""A run stops at the limits on rows before it looks for weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import loracook
from tests.tiny_recipes import twin


def test_rows_over_a_limit_stop_the_run_before_weights_are_loaded(tmp_path: Path) -> None:
    recipe = twin("llama2-7b-8bit", tmp_path, dataset={"limits": {"truncated": 0}})
    (tmp_path / "model/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(loracook.RecipeError) as caught:
        loracook.run(recipe, tmp_path / "runs")
    said, worst, *_ = caught.value.problems
    assert said.path == worst.path == ("dataset", "limits", "truncated")
    assert said.message.endswith("; raise it or remove them")
    assert worst.message.count("kitchen-train.json") == 3
    assert caught.value.exit_code == 2
    assert not list(tmp_path.glob("runs/*/train-*/record.json"))


def test_evaluation_rows_without_a_prompt_stop_the_run_before_weights_are_loaded(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, evaluate={"rows": 2})  # rows of plain text
    (tmp_path / "model/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(loracook.RecipeError, match=r"evaluate\.rows: no evaluation row has a prompt"):
        loracook.run(recipe, tmp_path / "runs")


def test_a_base_model_without_some_weights_is_refused_by_name(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, evaluate=None, dataset={"eval": None})
    weights = tmp_path / "model/model.safetensors"
    tensors = load_file(weights)
    lost = next(name for name in tensors if name.endswith("fc1.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, weights, {"format": "pt"})
    with pytest.raises(
        loracook.LoracookError, match=f"weights are missing for 1 parameters, such as .*{lost[-20:]};"
    ):
        loracook.run(recipe, tmp_path / "runs")


def test_a_run_leaves_the_recipe_as_it_was_read(tmp_path: Path) -> None:
    lora = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    recipe = twin("opt-350m-lora", tmp_path, evaluate=None, dataset={"eval": None}, lora=lora)
    loracook.run(recipe, tmp_path / "runs")
    assert loracook.plan(recipe, tmp_path / "runs").to_do == ()
