"""What is checked before weights are loaded, and what the trainer gets that no section names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook import runner
from loracook.errors import LoracookError
from tests.tiny_recipes import twin

DROPPED = {"evaluate": None}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"lora": {"target_modules": ["q_proj", "v_prj"]}},
            "'v_prj' matches no module of this model; write 'v_proj'",
        ),
        (
            {"lora": {"modules_to_save": ["lm_hed"]}},
            "'lm_hed' matches no module of this model; write 'lm_head'",
        ),
        ({"dataset": {"columns": {"text": "quotation"}}}, "quotation"),
        ({"train": {"report_to": "trackio"}}, "trackio is not installed; run: pip install trackio"),
    ],
    ids=["target", "saved", "column", "tracker"],
)
def test_mistakes_are_reported_before_weights_are_loaded(
    tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    recipe = twin("opt-350m-lora", tmp_path, **DROPPED, **sections)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(LoracookError) as caught:
        loracook.trainer(recipe, tmp_path / "out")
    assert message in str(caught.value)


def test_a_tracker_is_looked_for_where_one_stage_is_run_alone(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, **DROPPED, train={"report_to": ["tensorboard", "trackio"]})
    with pytest.raises(LoracookError, match=r"train\.report_to: trackio is not installed"):
        runner.run(recipe, runs=tmp_path / "runs", only="train")


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, **DROPPED)
    (tmp_path / "model" / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(
        LoracookError, match="'t5' is an encoder-decoder; loracook trains causal language models"
    ):
        loracook.trainer(recipe, tmp_path / "out")


def test_pickled_weights_are_refused_by_name(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, **DROPPED)
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(LoracookError, match="no safetensors weights, and pickles can run code"):
        loracook.trainer(recipe, tmp_path / "out")


def test_loraplus_trains_b_faster_than_a(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, **DROPPED, lora={"loraplus": {"loraplus_lr_ratio": 16}})
    trainer = loracook.trainer(recipe, tmp_path / "out")
    assert {group["lr"] for group in trainer.optimizer.param_groups} >= {2e-4, 16 * 2e-4}


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    stopping = {
        "max_steps": 20,
        "learning_rate": 1e-9,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "early_stopping": {"early_stopping_patience": 2, "early_stopping_threshold": 0.5},
    }
    record = loracook.run(twin("opt-350m-lora", tmp_path, **DROPPED, train=stopping), tmp_path / "runs")[
        "train"
    ]
    assert record["result"]["steps"] == 6
    assert record["result"]["best_checkpoint"] == "checkpoint-2"


def test_tensorboard_gets_the_log_too(tmp_path: Path) -> None:
    recipe = twin("opt-350m-lora", tmp_path, **DROPPED, train={"report_to": "tensorboard"})
    loracook.run(recipe, tmp_path / "runs")
    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))


def test_a_grown_vocabulary_travels_with_the_adapter(tmp_path: Path) -> None:
    recipe = twin("falcon-7b-lora", tmp_path, evaluate=None, merge={})
    loracook.run(recipe, tmp_path / "runs")
    latest = tmp_path / "runs" / "falcon-7b-lora" / "latest"
    assert '"<|pad|>"' in (latest / "merge" / "model" / "tokenizer_config.json").read_text()
    assert loracook.plan(recipe, tmp_path / "runs").to_do == ()


def test_training_continues_after_an_evaluation_in_4_bit(tmp_path: Path) -> None:
    whole = {"eval_strategy": "steps", "max_steps": 4}
    sections = {"evaluate": None, "merge": None, "push": None, "lora": {"lora_dropout": 0.0}}
    watched = twin("phi2-oasst", tmp_path / "a", **sections, train=whole | {"eval_steps": 1})
    unwatched = twin("phi2-oasst", tmp_path / "b", **sections, train=whole | {"eval_steps": 4})
    first, second = (
        loracook.run(recipe, recipe.file.parent / "runs")["train"]["files"][
            "adapter/adapter_model.safetensors"
        ]
        for recipe in (watched, unwatched)
    )
    assert first == second
