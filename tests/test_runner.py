"""What survives: kills, signals, broken files, a second run, a loss that runs away."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import loracook
from loracook import runner
from loracook.errors import DivergedError, LockedError, MachineError, RecipeError
from loracook.machine.signals import STOPPED, STOPPING
from loracook.progress import Silent
from loracook.store.files import MANIFEST, file_facts, read_sealed, sha256, write_sealed
from loracook.store.record import read_record, write_record
from loracook.training.callbacks import refuse_infinite
from loracook.training.checkpoints import newest_sealed, verify
from tests import processes
from tests.tiny_recipes import twin_file

LORACOOK = Path(sys.executable).parent / "loracook"
LONG = {"num_train_epochs": None, "max_steps": 24, "save_steps": 4, "logging_steps": 1}
DROPPED = {"evaluate": None, "dataset": {"path": "./rows.jsonl", "eval": None}}
PUBLISHED = {"folder": "published"}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return twin_file("opt-350m-lora", tmp_path, train=LONG, **DROPPED)


def start(recipe: Path) -> processes.Process:
    """`loracook run` in a process of its own."""
    return processes.start("run", recipe.name, cwd=recipe.parent)


def run(recipe: Path) -> subprocess.CompletedProcess[str]:
    """`loracook run` to its end."""
    return processes.run("run", recipe.name, cwd=recipe.parent)


def folders(recipe: Path) -> list[Path]:
    """The folders of the recipe's stages."""
    return [stage.folder for stage in loracook.plan(loracook.load(recipe), recipe.parent / "runs").stages]


def train_folder(recipe: Path) -> Path:
    """The folder of the recipe's train stage."""
    return folders(recipe)[0]


def wait_for(folder: Path, pattern: str) -> None:
    """Wait until a file of that pattern is in the folder."""
    until = time.monotonic() + 60
    while not any(folder.glob(pattern)):
        assert time.monotonic() < until
        time.sleep(0.02)


def weights(folder: Path) -> dict[str, bytes]:
    """The adapter's tensors as bytes."""
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    return {name: tensor.float().numpy().tobytes() for name, tensor in tensors.items()}


def entries(folder: Path) -> list[dict[str, float]]:
    """What a training has logged."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def cooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a run that nothing disturbed, trained, merged and published."""
    folder = tmp_path_factory.mktemp("cooked")
    recipe = twin_file("opt-350m-lora", folder, train=LONG, merge={}, push=PUBLISHED, **DROPPED)
    assert run(recipe).returncode == 0
    return recipe


@pytest.fixture(scope="module")
def undisturbed(cooked: Path) -> dict[str, bytes]:
    return weights(train_folder(cooked))


@pytest.fixture
def finished(cooked: Path, tmp_path: Path) -> Path:
    """The same recipe and its run in a place of their own."""
    shutil.copytree(cooked.parent, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / cooked.name


def test_a_killed_run_resumes_to_the_same_weights(recipe_file: Path, undisturbed: dict[str, bytes]) -> None:
    process, folder = start(recipe_file), train_folder(recipe_file)
    wait_for(folder, f"checkpoints/checkpoint-*/{MANIFEST}")
    process.kill()
    process.communicate()
    assert not (folder / "record.json").exists()
    again = run(recipe_file)
    assert again.returncode == 0
    assert "resuming from checkpoint-" in again.stdout
    assert weights(folder) == undisturbed


@pytest.mark.parametrize(
    "best", [{}, {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}]
)
def test_a_run_killed_after_its_last_checkpoint_takes_no_further_step(
    best: dict[str, object], tmp_path: Path
) -> None:
    """In the middle of an epoch, at a learning rate that would change the weights."""
    train = LONG | {"max_steps": 4, "save_steps": 2, "lr_scheduler_type": "constant", **best}
    data = {"path": "./rows.jsonl", "eval": {"rows": 2}}
    recipe = twin_file("opt-350m-lora", tmp_path, train=train, evaluate=None, dataset=data)
    assert run(recipe).returncode == 0
    folder = train_folder(recipe)
    undisturbed, log = weights(folder), entries(folder)
    record = read_record(folder)["result"]
    (folder / "record.json").unlink()
    shutil.rmtree(folder / "adapter")
    assert run(recipe).returncode == 0
    assert weights(folder) == undisturbed
    assert entries(folder) == [entry for entry in log if "train_loss" not in entry]
    again = read_record(folder)["result"]
    same = ("losses", "loss_steps", "steps", "best_checkpoint", "parameters", "data", "settings")
    assert {name: again[name] for name in same} == {name: record[name] for name in same}


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75), (signal.SIGUSR1, 75)],
)
def test_a_signal_stops_with_a_checkpoint_of_the_current_step(
    recipe_file: Path, number: signal.Signals, code: int
) -> None:
    process, folder = start(recipe_file), train_folder(recipe_file)
    wait_for(folder, "log.jsonl")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, f"{STOPPING}\n{STOPPED}\n")
    steps = [json.loads(line).get("step", 0) for line in (folder / "log.jsonl").read_text().splitlines()]
    checkpoint, dropped = newest_sealed(folder / "checkpoints")
    assert (checkpoint and checkpoint.name, dropped) == (f"checkpoint-{max(steps)}", [])


def test_the_log_continues_the_token_count_of_a_checkpoint(finished: Path, checkpoints: Path) -> None:
    log = checkpoints.parent / "log.jsonl"
    undisturbed = counted(log)
    shutil.rmtree(checkpoints / "checkpoint-24")
    again = run(finished)
    assert "resuming from checkpoint-20" in again.stdout
    assert counted(log) == undisturbed


def counted(log: Path) -> list[int]:
    """The tokens trained by every line of a log."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return [line["num_tokens"] for line in lines if "num_tokens" in line]


def test_a_signal_during_start_up_stops_within_two_seconds(recipe_file: Path) -> None:
    command, pipe = [LORACOOK, "run", recipe_file.name], subprocess.PIPE
    process = subprocess.Popen(command, cwd=recipe_file.parent, stdout=pipe, stderr=pipe, text=True)
    wait_for(recipe_file.parent / "runs", "*/log.txt")
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (75, f"{STOPPED}\n")
    assert time.monotonic() - began < 2


@pytest.fixture
def checkpoints(finished: Path) -> Path:
    """The checkpoints of that run, as if its training had not finished."""
    folder = train_folder(finished)
    (folder / "record.json").unlink()
    return folder / "checkpoints"


def test_a_flipped_bit_in_a_checkpoint_is_named_and_the_one_before_is_used(
    finished: Path, checkpoints: Path, undisturbed: dict[str, bytes]
) -> None:
    optimizer = checkpoints / "checkpoint-24" / "optimizer.pt"
    content = bytearray(optimizer.read_bytes())
    content[len(content) // 2] ^= 1
    optimizer.write_bytes(content)
    again = run(finished)
    assert "skipping checkpoint-24: optimizer.pt is corrupt (hash mismatch)" in again.stdout
    assert "resuming from checkpoint-20" in again.stdout
    assert weights(checkpoints.parent) == undisturbed


def test_a_checkpoint_without_its_seal_is_not_used(checkpoints: Path) -> None:
    (checkpoints / "checkpoint-24" / MANIFEST).unlink()
    checkpoint, dropped = newest_sealed(checkpoints)
    assert checkpoint == checkpoints / "checkpoint-20"
    aside = "skipped-1-checkpoint-24"
    assert dropped == [f"skipping checkpoint-24: manifest.json is missing; it is now {aside}"]
    assert not (checkpoints / "checkpoint-24").exists()
    assert (checkpoints / aside / "optimizer.pt").exists()


def test_a_checkpoint_is_written_after_the_first_step_and_at_the_end(tmp_path: Path) -> None:
    recipe = twin_file("opt-350m-lora", tmp_path, train=LONG | {"max_steps": 3, "save_steps": 100}, **DROPPED)
    assert run(recipe).returncode == 0
    checkpoints = train_folder(recipe) / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"checkpoint-1", "checkpoint-3"}


def test_a_checkpoint_that_cannot_be_read_back_is_this_machines_fault(checkpoints: Path) -> None:
    (checkpoints / "checkpoint-24" / "scheduler.pt").unlink()
    with pytest.raises(MachineError, match=r"is corrupt: scheduler\.pt is missing"):
        verify(checkpoints / "checkpoint-24")


@pytest.mark.parametrize(("name", "was"), [("torch", "1.0"), ("seed", 7), ("device", "cuda")])
def test_a_run_does_not_resume_from_a_checkpoint_made_differently(
    finished: Path, checkpoints: Path, name: str, was: object
) -> None:
    manifest = checkpoints / "checkpoint-24" / MANIFEST
    facts = read_sealed(manifest)
    now, facts["made"][name] = facts["made"][name], was
    write_sealed(manifest, facts)
    again = run(finished)
    folder = checkpoints.relative_to(finished.parent)
    assert (again.returncode, again.stderr) == (
        2,
        f"cannot resume from checkpoint-24: {name} was {was}, now {now}; "
        f"change that back, or remove {folder} to start over\n",
    )


def test_a_second_run_on_the_folder_is_refused_at_once(recipe_file: Path) -> None:
    process = start(recipe_file)
    wait_for(recipe_file.parent / "runs", "*/.lock")
    time.sleep(0.3)
    second = run(recipe_file)
    process.terminate()
    process.communicate()
    assert second.returncode == LockedError.exit_code
    assert second.stderr == "another run is using 'runs/opt-350m-lora'; wait for it to finish, or stop it\n"


def test_a_base_that_holds_nan_ends_the_run_before_a_step(recipe_file: Path) -> None:
    poison(recipe_file.parent / "model" / "model.safetensors")
    with pytest.raises(RecipeError, match=r"its weight .*fc1\.weight holds NaN or infinity"):
        loracook.run(loracook.load(recipe_file), recipe_file.parent / "runs")
    assert newest_sealed(train_folder(recipe_file) / "checkpoints") == (None, [])
    assert not (train_folder(recipe_file) / "record.json").exists()


def test_a_diverging_loss_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(DivergedError, match=r"loss is inf at step 11; .*; checkpoint-10 is kept"):
        refuse_infinite({"loss": float("inf")}, 11, tmp_path)


def poison(file: Path) -> None:
    """Put a value that is no number into a model."""
    tensors = load_file(file)
    next(tensor for name, tensor in tensors.items() if name.endswith("fc1.weight"))[0, 0] = float("nan")
    save_file(tensors, file, {"format": "pt"})


def turn_the_last_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_stages_after_one_that_is_rerun_with_the_same_result_stay_done(
    finished: Path, undisturbed: dict[str, bytes]
) -> None:
    train, merge, _ = folders(finished)
    turn_the_last_bit(train / "adapter" / "adapter_model.safetensors")
    before = (merge / "record.json").read_bytes()
    again = run(finished)
    fault = "adapter/adapter_model.safetensors is corrupt (hash mismatch)"
    assert (again.returncode, again.stdout.count(f"running train again: {fault}\n")) == (0, 1)
    assert weights(train) == undisturbed
    assert (merge / "record.json").read_bytes() == before


def test_a_stage_is_rerun_when_the_result_of_the_one_before_changed(finished: Path) -> None:
    train, merge, _ = folders(finished)
    adapter = train / "adapter" / "adapter_model.safetensors"
    turn_the_last_bit(adapter)
    record = read_record(train)
    record["files"][f"adapter/{adapter.name}"] = file_facts(adapter.parent)[adapter.name]
    write_record(train, record)
    again = run(finished)
    assert (again.returncode, "running train again" in again.stdout) == (0, False)
    assert f"running merge again: the weights in {train.name} have changed\n" in again.stdout
    assert read_record(merge)["before"] == {
        train.name: {"adapter/adapter_model.safetensors": sha256(adapter)}
    }


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda published: shutil.rmtree(published), "../published/README.md is missing"),
        (
            lambda published: turn_the_last_bit(published / "adapter_model.safetensors"),
            "../published/adapter_model.safetensors is corrupt (hash mismatch)",
        ),
        (lambda published: publish_another(published), "../published/README.md is corrupt (size mismatch)"),
    ],
)
def test_a_push_to_a_folder_is_done_while_all_of_it_is_there(
    finished: Path, harm: Callable[[Path], object], fault: str
) -> None:
    published = train_folder(finished).parent / "published"
    before = file_facts(published)
    harm(published)
    again = run(finished)
    assert again.returncode == 0
    assert "train done" not in again.stdout
    assert f"  push will run again: {fault}\n" in again.stdout
    assert file_facts(published) == before


def publish_another(published: Path) -> None:
    """Run another recipe of the same name that publishes to the same folder."""
    recipe = published.parents[2] / "recipe.yaml"
    another = json.loads(recipe.read_text()) | {"description": "Something else"}
    recipe.with_name("another.yaml").write_text(json.dumps(another))
    assert run(recipe.with_name("another.yaml")).returncode == 0


def test_a_stage_refuses_files_that_changed_since_they_were_recorded(finished: Path) -> None:
    train, merge, _ = folders(finished)
    shutil.rmtree(merge)
    turn_the_last_bit(train / "adapter" / "adapter_model.safetensors")
    time.sleep(0.02)  # the clock of file systems ticks in some 4 ms
    os.utime(train / "record.json")  # it is the newer one again, as where the disk itself forgets
    again = run(finished)
    message = f"adapter_model.safetensors is corrupt (hash mismatch); remove runs/opt-350m-lora/{train.name} "
    assert (again.returncode, message in again.stderr) == (2, True)


def test_an_interrupted_stage_leaves_no_record(recipe_file: Path) -> None:
    file = recipe_file.parent / "model" / "model.safetensors"
    shutil.copy(file, file.with_suffix(".kept"))
    os.truncate(file, 100)
    assert run(recipe_file).returncode != 0
    assert not list(recipe_file.parent.glob("runs/*/train-*/record.json"))


class Loaded(Silent):
    """The models that are loaded as each stage begins."""

    def __init__(self) -> None:
        self.models: dict[str, int] = {}

    def begin(self, stage: str) -> None:
        """Count them."""
        models = (each for each in gc.get_objects() if isinstance(each, PreTrainedModel))
        self.models[stage] = sum(model.device.type != "meta" for model in models)


def test_a_stage_begins_without_the_models_of_those_before(tmp_path: Path) -> None:
    loaded = Loaded()
    runner.run(loracook.load(twin_file("opt-350m-lora", tmp_path)), runs=tmp_path / "runs", progress=loaded)
    assert loaded.models["train"] == loaded.models["evaluate"]
