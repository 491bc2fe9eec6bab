"""A finished training made longer: it goes on where that is the same run, and says why not elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loracook.planner import PlannedStage, plan
from loracook.recipe.recipe import Recipe, load
from loracook.runner import run
from loracook.store.files import manifest
from loracook.store.record import read_record, write_record
from loracook.training.checkpoints import take_over
from loracook.views.plan_details import PlanDetails
from loracook.views.plan_json import as_json
from loracook.views.plan_text import detail_lines
from tests.tiny_recipes import twin_file
from tests.training.test_resume import Notes, turn_the_last_bit

WEIGHTS = "adapter/adapter_model.safetensors"
CONSTANT = {"max_steps": 5, "lr_scheduler_type": "constant", "save_steps": 3}
EVALUATES = {"eval_strategy": "steps", "eval_steps": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, whose model drops units at random, and a finished run of it."""
    folder = tmp_path_factory.mktemp("kitchen")
    twin_file(
        "opt-350m-lora", folder, train=CONSTANT, evaluate=None, dataset={"rows": 24, "eval": {"rows": 4}}
    )
    run(recipe(folder), runs=folder / "runs")
    return folder


@pytest.fixture(scope="module")
def long_run(trained: Path) -> bytes:
    """The weights of a run of eight steps."""
    return undisturbed(trained, max_steps=8)


@pytest.fixture
def kitchen(trained: Path, tmp_path: Path) -> Path:
    """The same in a place of its own."""
    return Path(shutil.copytree(trained, tmp_path / "kitchen", symlinks=True))


def recipe(folder: Path, **train: Any) -> Recipe:
    """The recipe with other values of its `train` section."""
    return load(
        folder / "recipe.yaml",
        [
            f"train.{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in train.items()
        ],
    )


def stage(folder: Path, **train: Any) -> PlannedStage:
    """The planned training."""
    return plan(recipe(folder, **train), folder / "runs").stages[0]


def trained_on(folder: Path, **train: Any) -> tuple[bytes, dict[str, Any], list[str]]:
    """The weights, the result and the notes of a training in that place."""
    progress = Notes()
    record = run(recipe(folder, **train), runs=folder / "runs", progress=progress)["train"]
    return (stage(folder, **train).folder / WEIGHTS).read_bytes(), record["result"], progress.notes


def undisturbed(folder: Path, **train: Any) -> bytes:
    """The weights of the same training in a place without an earlier one."""
    run(recipe(folder, **train), runs=folder / "elsewhere")
    return (plan(recipe(folder, **train), folder / "elsewhere").stages[0].folder / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_lengthened_run_ends_with_the_bits_of_a_long_one_and_leaves_the_short_one(
    kitchen: Path, long_run: bytes
) -> None:
    short = stage(kitchen)
    before = {path: path.read_bytes() for path in short.folder.rglob("*") if path.is_file()}
    weights, result, notes = trained_on(kitchen, max_steps=8)
    assert weights == long_run
    assert (result["steps"], result["resumed_from"], result["lengthens"]) == (
        8,
        "checkpoint-5",
        short.folder.name,
    )
    assert f"training from checkpoint-5 of {short.folder.name}, which is the same but shorter" in notes
    log = (stage(kitchen, max_steps=8).folder / "log.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, log) if "loss" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6, 7, 8]
    tokens = [entry["num_tokens"] for entry in entries]
    assert tokens == sorted(set(tokens))
    assert {path: path.read_bytes() for path in short.folder.rglob("*") if path.is_file()} == before
    assert stage(kitchen).done
    interrupted = stage(kitchen, max_steps=8).folder
    (interrupted / "record.json").unlink()
    shutil.rmtree(interrupted / "checkpoints" / "checkpoint-8")
    again, result, _ = trained_on(kitchen, max_steps=8)
    assert (again, result["resumed_from"], result["lengthens"]) == (weights, "checkpoint-6", None)


@pytest.mark.slow
def test_epochs_are_added_at_the_end_of_an_epoch(kitchen: Path) -> None:
    epochs: dict[str, Any] = {
        "max_steps": None, "num_train_epochs": 1, "save_strategy": "epoch", "eval_strategy": "epoch",
        "per_device_train_batch_size": 5, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2,
    }  # fmt: skip
    trained_on(kitchen, **epochs)
    longer = epochs | {"num_train_epochs": 2}
    weights, result, _ = trained_on(kitchen, **longer)
    assert (result["steps"], result["resumed_from"]) == (8, "checkpoint-4")
    assert weights == undisturbed(kitchen, **longer)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(kitchen: Path, long_run: bytes) -> None:
    newest = stage(kitchen).folder / "checkpoints" / "checkpoint-5"
    turn_the_last_bit(newest / "optimizer.pt")
    weights, result, notes = trained_on(kitchen, max_steps=8)
    assert result["resumed_from"] == "checkpoint-3"
    assert weights == long_run
    said = f"skipping checkpoint-5 of {stage(kitchen).folder.name}: optimizer.pt is corrupt (hash mismatch)"
    assert said in notes
    assert newest.exists()


def renamed(folder: Path, **train: Any) -> None:
    """Let the finished run be one of the recipe with these values, as its record says."""
    old, new = stage(folder), stage(folder, **train)
    old.folder.rename(new.folder)
    record = read_record(new.folder) | {"digest": new.digest}
    record["sections"]["train"] = dict(recipe(folder, **train)["train"])
    write_record(new.folder, record)


@pytest.mark.parametrize(
    ("train", "why"),
    [
        ({"lr_scheduler_type": "cosine"}, "with lr_scheduler_type: cosine, learning rates depend on"),
        ({"lr_scheduler_type": "linear"}, "with lr_scheduler_type: linear, learning rates depend on"),
        (
            {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.2},
            "warmup_steps: 0.2 is a share of all steps",
        ),
        (EVALUATES | {"eval_steps": 0.5}, "evaluations after a share of all steps, 0.5, change"),
        (EVALUATES | {"metric_for_best_model": "loss"}, "what it does depends on its evaluations"),
        (EVALUATES | {"lr_scheduler_type": "greedy"}, "what it does depends on its evaluations"),
    ],
    ids=str,
)
def test_a_plan_says_why_a_longer_run_is_another(kitchen: Path, train: dict[str, Any], why: str) -> None:
    renamed(kitchen, **train)
    planned = plan(recipe(kitchen, **train | {"max_steps": 8}), kitchen / "runs")
    short = stage(kitchen, **train).folder.name
    line = detail_lines(PlanDetails(planned, None))[0]
    assert line.startswith(
        f"resumes   train from the start, in a folder of its own and not from {short}, which is the same "
        f"but shorter: {why}"
    )
    assert as_json(PlanDetails(planned, None))["stages"][0]["lengthens"] in line


@pytest.mark.slow
def test_under_cosine_a_longer_run_is_trained_from_the_start(kitchen: Path) -> None:
    renamed(kitchen, lr_scheduler_type="cosine")
    _, result, notes = trained_on(kitchen, lr_scheduler_type="cosine", max_steps=8)
    assert (result["resumed_from"], result["lengthens"], result["steps"]) == (None, None, 8)
    assert any("learning rates depend on the number of all steps" in note for note in notes)


def test_after_an_evaluation_at_the_end_the_checkpoint_before_is_taken(kitchen: Path) -> None:
    renamed(kitchen, **EVALUATES)
    planned = plan(recipe(kitchen, **EVALUATES | {"max_steps": 8}), kitchen / "runs")
    assert detail_lines(PlanDetails(planned, None)) == [
        f"resumes   train from checkpoint-3 of {stage(kitchen, **EVALUATES).folder.name}, "
        "which is the same but shorter, if its files are intact"
    ]


@pytest.mark.parametrize(
    "train", [{"max_steps": 4}, {"max_steps": 8, "seed": 7}, {"max_steps": None, "num_train_epochs": 3}]
)
def test_another_recipe_or_a_shorter_one_lengthens_nothing(kitchen: Path, train: dict[str, Any]) -> None:
    assert stage(kitchen, **train).lengthens is None


def test_without_checkpoints_a_plan_says_so(kitchen: Path) -> None:
    shutil.rmtree(stage(kitchen).folder / "checkpoints")
    assert str(stage(kitchen, max_steps=8).lengthens).endswith("shorter: it has no checkpoints")


@pytest.mark.parametrize(
    "length",
    ["x", {}, {"max_steps": "5"}, {"max_steps": [5]}, {"max_steps": float("nan")}, {"max_steps": -1}],
)
def test_a_strangers_record_of_another_shape_lengthens_nothing(kitchen: Path, length: object) -> None:
    folder = stage(kitchen).folder
    record = read_record(folder)
    record["sections"]["train"] = length
    write_record(folder, record)
    assert stage(kitchen, max_steps=8).lengthens is None


def test_a_change_of_version_since_the_shorter_run_starts_over(kitchen: Path) -> None:
    checkpoint = stage(kitchen).folder / "checkpoints" / "checkpoint-5"
    made = manifest(checkpoint)["made"] | {"recipe": "another", "torch": "9.9"}
    into = kitchen / "into"
    assert take_over(checkpoint, into, made) == f"torch was {manifest(checkpoint)['made']['torch']}, now 9.9"
    assert not list(into.glob("checkpoint-*"))
    assert take_over(checkpoint, into, made | {"torch": manifest(checkpoint)["made"]["torch"]}) is None
    taken = manifest(into / "checkpoint-5")
    assert (taken["made"]["recipe"], taken["taken_from"]) == ("another", stage(kitchen).folder.name)
