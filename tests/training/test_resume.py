"""Going on from a checkpoint: with the best one found and verified, and to a record that is true."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import loracook
from loracook.errors import MachineError
from loracook.progress import Silent
from loracook.runner import run
from loracook.store.files import MANIFEST, manifest, seal
from loracook.store.record import read_record
from tests.tiny_recipes import twin_file

ADAPTER = "adapter_model.safetensors"
BEST_IS_THE_FIRST = {
    "num_train_epochs": None,
    "max_steps": 6,
    "save_steps": 2,
    "save_total_limit": 3,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "mean_token_accuracy",
    "learning_rate": 1e-7,  # which no token is guessed otherwise for, and a tie is no gain
}

EVERYWHERE = {"target_modules": "all-linear"}
OF_ONE_ATTEMPT = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}


class Notes(Silent):
    """Keeps what a stage notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Harm(Silent):
    """Turns a bit of the best checkpoint when two steps are left."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs

    def advance(self, done: int, total: int, text: str) -> None:
        if total == 6 and done == 4:
            turn_the_last_bit(next(self.runs.glob(f"*/train-*/checkpoints/checkpoint-2/{ADAPTER}")))


@pytest.fixture(scope="module")
def cooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its run, started from inside it with a relative runs folder."""
    folder = tmp_path_factory.mktemp("cooked")
    recipe = twin_file("opt-350m-lora", folder, train=BEST_IS_THE_FIRST, lora=EVERYWHERE, evaluate=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        record = run(loracook.load(recipe), runs=Path("runs"))["train"]
    assert record["result"]["best_checkpoint"] == "checkpoint-2"
    return folder


@pytest.fixture
def stopped(cooked: Path, tmp_path: Path) -> Path:
    """The same in a place of its own, stopped two steps before its end."""
    folder = shutil.copytree(cooked, tmp_path / "kitchen", symlinks=True)
    (train_folder(folder) / "record.json").unlink()
    shutil.rmtree(train_folder(folder) / "adapter")
    shutil.rmtree(train_folder(folder) / "checkpoints" / "checkpoint-6")
    return folder


def train_folder(folder: Path) -> Path:
    return next(folder.glob("runs/*/train-*"))


def weights(folder: Path) -> bytes:
    return (train_folder(folder) / "adapter" / ADAPTER).read_bytes()


def turn_the_last_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def resume(folder: Path) -> list[str]:
    """Run the recipe, the folder spelt from the root, and return what was noted."""
    progress = Notes()
    run(loracook.load(folder / "recipe.yaml"), runs=folder / "runs", progress=progress)
    return progress.notes


def test_a_resumed_run_finds_its_best_checkpoint_by_any_path_to_its_folder(
    cooked: Path, stopped: Path
) -> None:
    assert "resuming from checkpoint-4" in resume(stopped)
    assert weights(stopped) == weights(cooked)
    assert (train_folder(stopped) / "checkpoints" / "checkpoint-2").exists()


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda best: turn_the_last_bit(best / ADAPTER), f"{ADAPTER} is corrupt (hash mismatch)"),
        (shutil.rmtree, "manifest.json is missing"),
    ],
)
def test_a_checkpoint_is_not_used_without_the_best_before_it(
    cooked: Path, stopped: Path, harm: Callable[[Path], object], fault: str
) -> None:
    harm(train_folder(stopped) / "checkpoints" / "checkpoint-2")
    notes = resume(stopped)
    said = f"skipping checkpoint-4: its best checkpoint, checkpoint-2, is corrupt: {fault}"
    assert any(note.startswith(said) for note in notes)
    assert weights(stopped) == weights(cooked)


def test_a_checkpoint_with_moments_cut_short_is_not_loaded_and_the_one_before_is(
    cooked: Path, stopped: Path
) -> None:
    newest = train_folder(stopped) / "checkpoints" / "checkpoint-4"
    state = torch.load(newest / "optimizer.pt", weights_only=True)
    state["state"][0]["exp_avg"] = state["state"][0]["exp_avg"].flatten()[:1].clone()
    torch.save(state, newest / "optimizer.pt")
    (newest / MANIFEST).unlink()
    made = manifest(newest.with_name("checkpoint-2"))
    seal(newest, made=made["made"], tokens=made["tokens"])
    notes = resume(stopped)
    aside = "skipped-1-checkpoint-4"
    said = f"skipping checkpoint-4: optimizer.pt does not fit the model; it is now {aside}"
    assert notes.index(said) < notes.index("resuming from checkpoint-2")
    assert weights(stopped) == weights(cooked)


def test_a_best_checkpoint_damaged_during_training_is_refused(stopped: Path) -> None:
    recipe, runs = loracook.load(stopped / "recipe.yaml"), stopped / "runs"
    with pytest.raises(MachineError, match=rf"checkpoint-2 is corrupt: {ADAPTER} is corrupt"):
        run(recipe, runs=runs, progress=Harm(runs))
    assert not (train_folder(stopped) / "adapter").exists()


def test_metrics_of_the_last_attempt_are_not_reported_for_the_whole_run(cooked: Path, stopped: Path) -> None:
    resume(stopped)
    (whole, line), (resumed, last) = result_and_last_line(cooked), result_and_last_line(stopped)
    assert (whole["resumed_from"], resumed["resumed_from"]) == (None, "checkpoint-4")
    assert whole["metrics"].keys() - resumed["metrics"].keys() == OF_ONE_ATTEMPT
    assert line.keys() - last.keys() == OF_ONE_ATTEMPT
    assert whole["metrics"]["epoch"] == resumed["metrics"]["epoch"]


def test_a_resumed_log_has_the_speed_of_every_step_and_counts_none_twice(stopped: Path) -> None:
    resume(stopped)
    log = (train_folder(stopped) / "log.jsonl").read_text("utf-8").splitlines()
    steps = [entry for entry in map(json.loads, log) if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4, 5, 6]
    speeds = [entry["tokens_per_second"] for entry in steps]
    assert min(speeds) > 0
    assert all(entry.get("memory_bytes", 1) > 0 for entry in steps)
    tokens = [entry["num_tokens"] for entry in steps]
    assert tokens == sorted(set(tokens))


def result_and_last_line(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result in the record of training, and the last line of its log."""
    log = (train_folder(folder) / "log.jsonl").read_text("utf-8")
    return read_record(train_folder(folder))["result"], json.loads(log.splitlines()[-1])


def test_an_adapter_names_its_modules_in_the_same_order_in_every_process(cooked: Path) -> None:
    config = json.loads((train_folder(cooked) / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert len(config["target_modules"]) > 5
    assert config["target_modules"] == sorted(config["target_modules"])


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length", "batch_rebalance"])
def test_a_run_resumed_in_a_later_epoch_takes_the_rows_of_an_undisturbed_one(
    tmp_path: Path, strategy: str
) -> None:
    steps = {"max_steps": 7, "save_steps": 1, "save_total_limit": 9, "train_sampling_strategy": strategy}
    recipe = loracook.load(
        twin_file("opt-350m-lora", tmp_path, train=steps, evaluate=None, dataset={"rows": 10})
    )
    runs = tmp_path / "runs"
    undisturbed = run(recipe, runs=runs)["train"]["files"]
    train = train_folder(tmp_path)
    (train / "record.json").unlink()
    for step in (5, 6, 7):
        shutil.rmtree(train / "checkpoints" / f"checkpoint-{step}")
    resumed = run(recipe, runs=runs)["train"]
    assert resumed["result"]["resumed_from"] == "checkpoint-4"
    weights = f"adapter/{ADAPTER}"
    assert resumed["files"][weights] == undisturbed[weights]
