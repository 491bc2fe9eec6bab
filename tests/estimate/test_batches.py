"""The plan's steps and tokens are those of the run, for every shape of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

import loracook
from loracook.errors import RecipeError
from loracook.estimate.batches import Batch, longest_batch, trained_tokens
from loracook.recipe.derived import Steps, steps
from tests.plans import invoked, plan
from tests.tiny_models import LINES, write_twin

ROWS = [LINES[number % len(LINES)][: 20 + 3 * number] for number in range(21)]
SHAPES: dict[str, dict[str, Any]] = {
    "an epoch and a batch that is not full": {"num_train_epochs": 1},
    "accumulation that does not divide, twice": {"gradient_accumulation_steps": 4, "num_train_epochs": 2},
    "the last batch dropped": {"dataloader_drop_last": True, "num_train_epochs": 2},
    "packed blocks": {"packing": True, "max_length": 40, "num_train_epochs": 2},
    "rows cut into blocks": {"packing": True, "packing_strategy": "wrapped", "max_length": 32},
    "a fixed number of steps": {"max_steps": 5, "gradient_accumulation_steps": 2},
    "part of an epoch": {"num_train_epochs": 1.4},
    "part of an epoch in the file's order": {"num_train_epochs": 1.4, "shuffle": False},
    "rows of like length together": {"train_sampling_strategy": "group_by_length", "num_train_epochs": 2},
}


def recipe_file(folder: Path, train: dict[str, Any]) -> Path:
    """A recipe on a tiny model and rows of different lengths; `shuffle` is the data set's."""
    shuffle = train.get("shuffle", True)
    write_twin(folder / "model", "llama")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in ROWS), "utf-8")
    recipe = {
        "version": 1,
        "name": "shapes",
        "base_model": {"name_or_path": "./model"},
        "dataset": {
            "path": "./rows.jsonl",
            "format": "text",
            "limits": {"truncated": 1.0, "duplicates": 1.0},
            "shuffle": shuffle,
        },
        "lora": {"r": 2, "target_modules": ["q_proj"]},
        "train": {
            "per_device_train_batch_size": 2,
            "max_length": 64,
            "logging_steps": 1,
            "save_strategy": "no",
        }
        | {key: value for key, value in train.items() if key != "shuffle"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return folder / "recipe.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_and_tokens_of_the_plan_are_those_of_the_run(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORACOOK_CACHE", str(tmp_path / "cache"))
    file, runs = recipe_file(tmp_path, SHAPES[shape]), tmp_path / "runs"
    before = plan(file, "--runs", runs)
    record = loracook.run(loracook.load(file), runs)["train"]
    log = [
        json.loads(line) for line in (runs / "shapes/latest/train/log.jsonl").read_text("utf-8").splitlines()
    ]
    after = plan(file, "--runs", runs)
    counted = [entry["num_tokens"] for entry in log if "num_tokens" in entry]
    assert (before["steps"]["total"], before["tokens"]["total"]) == (record["result"]["steps"], counted[-1])
    assert (after["steps"], after["tokens"]["total"]) == (before["steps"], before["tokens"]["total"])
    assert before["tokens"]["source"].startswith("all ")
    assert after["tokens"]["source"] == "the prepared data"


@pytest.mark.slow
def test_a_plan_after_a_finished_run_says_that_there_is_nothing_to_do(tmp_path: Path) -> None:
    file, runs = recipe_file(tmp_path, {"max_steps": 1}), tmp_path / "runs"
    loracook.run(loracook.load(file), runs)
    assert [stage["done"] for stage in plan(file, "--runs", runs)["stages"]] == [True]
    assert "everything is done; there is nothing to do" in invoked(file, "--runs", runs).stdout


def test_steps_count_a_last_short_accumulation_as_one() -> None:
    train = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_train_epochs": 1.5}
    assert steps(train | {"warmup_steps": 0.3}, 21) == Steps(
        total=5, per_epoch=3, warmup=2, batches=11, effective_batch_size=8
    )


def test_the_longest_batch_counts_its_padding() -> None:
    train = {"per_device_train_batch_size": 2, "num_train_epochs": 1, "train_sampling_strategy": "sequential"}
    lengths = numpy.array([5, 6, 9, 1, 7, 7])
    assert longest_batch(train, lengths) == Batch(rows=(2, 3), length=9, masked=True)
    assert trained_tokens(train, lengths) == 35


def test_tokens_are_approximate_where_the_excluded_rows_are_unknown(tmp_path: Path) -> None:
    train = {"train_sampling_strategy": "group_by_length", "num_train_epochs": 1.4}
    planned = plan(recipe_file(tmp_path, train))
    assert planned["tokens"]["exact"] is False
    assert planned["memory"]["batch"] == {"rows": 2, "length": 27, "packed": False}


def test_the_steps_of_a_run_that_may_end_early_are_an_upper_bound(tmp_path: Path) -> None:
    train = {
        "early_stopping": {"early_stopping_patience": 1},
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
    }
    file = recipe_file(tmp_path, train)
    text = invoked(file, "--set", "dataset.eval={rows: 2}").stdout
    assert "\nsteps     at most " in text
    assert "\ntokens    at most " in text


def test_a_plan_says_which_limits_would_stop_the_run(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, {"max_length": 8})
    text = invoked(file, "--set", "dataset.limits.truncated=0.1").stdout
    assert "\nstops     " in text
    assert "dataset.limits.truncated: " in text


def test_steps_of_packed_rows_are_approximated_from_a_sample(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, {"packing": True})
    lines = "".join(json.dumps({"text": ROWS[number % 21] + f" {number}"}) + "\n" for number in range(1200))
    (tmp_path / "rows.jsonl").write_text(lines, "utf-8")
    planned = plan(file)
    assert planned["steps"]["exact"] is False
    assert planned["memory"]["batch"]["packed"] is True
    text = invoked(file).stdout
    assert "\nsteps     about " in text
    assert " rows packed into " in text


def test_a_batch_that_is_dropped_and_the_only_one_is_refused(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, {"dataloader_drop_last": True, "per_device_train_batch_size": 64})
    said = "train.dataloader_drop_last: drops the only batch: there are 21 rows; write false"
    assert said in str(invoked(file).exception)
    with pytest.raises(RecipeError, match="drops the only batch"):
        loracook.run(loracook.load(file), tmp_path / "runs")


@pytest.mark.parametrize("rows", ["training", "packed", "evaluation"])
def test_texts_beyond_a_models_positions_are_refused_before_training(tmp_path: Path, rows: str) -> None:
    train = {"eval_strategy": "epoch"} if rows == "evaluation" else {"packing": rows == "packed"}
    file = recipe_file(tmp_path, {"max_length": 1024, **train})
    write_twin(tmp_path / "model", "opt")
    config = json.loads((tmp_path / "model/config.json").read_text("utf-8"))
    long = json.dumps({"text": "word " * config["max_position_embeddings"] * 2}) + "\n"
    target = "held.jsonl" if rows == "evaluation" else "rows.jsonl"
    (tmp_path / "held.jsonl").write_text('{"text": "kept aside"}\n', "utf-8")
    (tmp_path / target).write_text(long + '{"text": "short"}\n', "utf-8")
    held = ("--set", "dataset.eval={path: ./held.jsonl}") if rows == "evaluation" else ()
    assert "train.max_length: a row has " in str(invoked(file, *held).exception)
