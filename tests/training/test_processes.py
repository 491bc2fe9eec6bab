"""Training in two processes is the training of one, and proves it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from loracook.cli import commands
from loracook.errors import RecipeError
from loracook.recipe.layers import with_value
from loracook.recipe.recipe import Recipe, load
from loracook.store.record import read_record
from loracook.training.processes import divided
from tests import processes
from tests.tiny_recipes import twin_file

WEIGHTS = "adapter/adapter_model.safetensors"
TRAIN = {
    "max_steps": 5,
    "logging_steps": 1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 3,
    "train_sampling_strategy": "random",
    "max_length": 40,
}
pytestmark = pytest.mark.slow


def kitchen(folder: Path, **train: Any) -> Path:
    """A folder with a recipe in float32 whose rows do not fill the last step of an epoch."""
    dataset = {"rows": 26, "eval": {"path": None, "rows": 5}}
    twin_file(
        "quickstart", folder, train=TRAIN | train, merge=None, push=None, evaluate=None, dataset=dataset
    )
    return folder


def loracook(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run in one process, or one that starts others."""
    return processes.run("run", "recipe.yaml", *arguments, cwd=folder)


def launched(folder: Path, *launcher: str, runs: str) -> subprocess.CompletedProcess[str]:
    """A run under another launcher, as a user starts it."""
    command = [sys.executable, "-m", *launcher, "-m", "loracook", "run", "recipe.yaml", "--runs", runs]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def free_port() -> str:
    """A port of this machine that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def together(*folders: Path, runs: str) -> list[tuple[int | None, str, str]]:
    """The exit code and output of a run whose processes are started beside each other, one in each folder."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(len(folders))}
    ranks = []
    for number, folder in enumerate(folders):
        own = {"RANK": str(number), "LOCAL_RANK": "0" if len({*folders}) > 1 else str(number)}
        if len({*folders}) > 1:
            own["LORACOOK_CACHE"] = str(folder / "cache")
        arguments = ("run", "recipe.yaml", "--runs", runs)
        ranks.append(processes.Process(arguments, folder, place | own))
    said = [rank.communicate() for rank in ranks]
    return [(rank.returncode, *texts) for rank, texts in zip(ranks, said, strict=True)]


def trained(folder: Path, runs: str) -> Path:
    """The folder of the training."""
    return (folder / runs / "quickstart/latest/train").resolve()


def losses(train: Path) -> list[tuple[int, str, float]]:
    """Every logged loss of a training, that of the evaluations, too."""
    log = [json.loads(line) for line in (train / "log.jsonl").read_text().splitlines()]
    return [
        (entry["step"], name, entry[name]) for entry in log for name in ("loss", "eval_loss") if name in entry
    ]


def assert_same(one: Path, other: Path, *, rel: float = 1e-5) -> None:
    """Hold two trainings against each other: losses, weights, and what is left."""
    assert [each[:2] for each in losses(one)] == [each[:2] for each in losses(other)]
    assert [each[2] for each in losses(one)] == pytest.approx([each[2] for each in losses(other)], rel=rel)
    ours, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


VARIANTS: dict[str, dict[str, Any]] = {
    "accumulation": {},
    "without accumulation": {"gradient_accumulation_steps": 1},
    "by length": {"train_sampling_strategy": "group_by_length"},
    "packed": {"packing": True, "max_length": 64, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
    "two epochs": {"max_steps": 11},
    "checkpointing": {"activation_checkpointing": True},
    "evaluations": {
        "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2, "save_steps": 2,
        "load_best_model_at_end": True, "early_stopping": {"early_stopping_patience": 2},
    },
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_train_as_one_does(tmp_path: Path, variant: str) -> None:
    folder = kitchen(tmp_path, **VARIANTS[variant])
    assert loracook(folder, "--runs", "one").returncode == 0
    ended = together(folder, folder, runs="two")
    assert [code for code, *_ in ended] == [0, 0], ended
    one, two = trained(folder, "one"), trained(folder, "two")
    assert one.name == two.name
    assert_same(one, two, rel=1e-3 if variant == "evaluations" else 1e-5)
    result = read_record(two)["result"]["processes"]
    assert (result["count"], result["strategy"]) == (2, "ddp")
    assert result["first_loss"] == pytest.approx(result["first_loss_alone"], rel=1e-5)
    assert len(list((folder / "two/quickstart").glob("train-*"))) == 1
    assert " a step in each of 2 processes\n" in ended[0][1]
    assert ended[1][1:] == ("", "")


@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc-per-node", "2"),
        ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    ],
    ids=["torchrun", "accelerate"],
)
def test_it_joins_the_processes_of_another_launcher(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    folder = kitchen(tmp_path)
    assert loracook(folder, "--runs", "one").returncode == 0
    ran = launched(folder, *launcher, runs="two")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("train     done") == 1
    assert_same(trained(folder, "one"), trained(folder, "two"))
    again = together(folder, folder, runs="two")
    assert [code for code, *_ in again] == [0, 0]
    assert "everything is done" in again[0][1]


def test_two_machines_without_a_common_folder(tmp_path: Path) -> None:
    folders = [kitchen(tmp_path / name) for name in ("first", "second")]
    ended = together(*folders, runs="two")
    assert [code for code, *_ in ended] == [0, 0], ended
    assert loracook(folders[0], "--runs", "one").returncode == 0
    assert_same(trained(folders[0], "one"), trained(folders[0], "two"))
    assert not list(folders[1].glob("two/*/train-*/record.json"))


def ranks(folder: Path) -> dict[int, int]:
    """The process id of each rank that trains in a folder now."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").resolve() != folder.resolve():
                continue
            command, environment = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
        except OSError:
            continue
        rank = re.search(rb"\0RANK=(\d+)", environment)
        if b"loracook.rank" in command and rank:
            found[int(rank[1])] = int(place.name)
    return found


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A long run in two processes that has saved a checkpoint."""
    command = [sys.executable, "-m", "loracook", "run", "recipe.yaml", "--processes", "2", *arguments]
    run = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=-1, stderr=-1, text=True
    )
    until = time.monotonic() + 120
    while not list(folder.glob("runs/*/train-*/checkpoints/checkpoint-3")):
        assert time.monotonic() < until
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    return run


LONG = {"max_steps": 30, "save_steps": 1, "save_total_limit": 3}


def test_a_killed_process_ends_all_and_the_same_command_goes_on(tmp_path: Path) -> None:
    folder = kitchen(tmp_path, **LONG)
    run = started(folder)
    os.kill(ranks(folder)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert (run.returncode, ranks(folder)) == (3, {})
    assert said.splitlines()[-1].startswith("a training process was killed")
    again = loracook(folder, "--processes", "2")
    assert (again.returncode, "resuming from checkpoint-" in again.stdout) == (0, True)
    assert [code for code, *_ in together(folder, folder, runs="undisturbed")] == [0, 0]
    assert (trained(folder, "runs") / WEIGHTS).read_bytes() == (
        trained(folder, "undisturbed") / WEIGHTS
    ).read_bytes()


def test_a_signal_saves_one_checkpoint_and_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    folder = kitchen(tmp_path, **LONG)
    run = started(folder)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert (run.returncode, ranks(folder)) == (75, {}), said
    again = loracook(folder)
    assert (again.returncode, "resuming from checkpoint-" in again.stdout) == (0, True), again.stderr
    assert loracook(folder, "--runs", "undisturbed").returncode == 0
    assert_same(trained(folder, "runs"), trained(folder, "undisturbed"))


def test_a_launcher_that_is_killed_leaves_no_process_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, temporary = kitchen(tmp_path / "kitchen", **LONG), tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    run = started(folder)
    assert list(temporary.glob("loracook-*"))
    run.kill()
    run.communicate()
    until = time.monotonic() + 10
    while ranks(folder) or list(temporary.glob("loracook-*")):
        assert time.monotonic() < until
        time.sleep(0.1)


def recipe(folder: Path, **train: Any) -> Recipe:
    return load(kitchen(folder, **train) / "recipe.yaml")


def test_the_rows_of_a_step_are_those_of_the_recipe(tmp_path: Path) -> None:
    section = recipe(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=6)
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps")
    each = {count: [divided(section, count)["train"][key] for key in keys] for count in (1, 2, 3, 4, 8, 12)}
    assert each == {1: [4, 6], 2: [4, 3], 3: [4, 2], 4: [2, 3], 8: [1, 3], 12: [2, 1]}
    sections = with_value(section.sections, ("train", keys[1]), None)
    assert [divided(replace(section, sections=sections), 2)["train"][key] for key in keys] == [2, 1]
    with pytest.raises(
        RecipeError,
        match="24 rows in a step cannot be divided among 5 processes; write gradient_accumulation_steps: 5",
    ):
        divided(section, 5)


def test_a_plan_has_the_memory_of_each_process_and_the_steps_of_all(tmp_path: Path) -> None:
    section = recipe(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    plans = {}
    for count in ("1", "4"):
        ran = CliRunner().invoke(
            commands, ["plan", str(section.file), "--processes", count, "--format", "json"]
        )
        plans[count] = json.loads(ran.stdout)
    one, four = plans["1"], plans["4"]
    assert (one["processes"], four["processes"], four["memory"]["batch"]["rows"]) == (1, 4, 1)
    assert one["steps"] == four["steps"]
    assert four["memory"]["parts"]["activations"] < one["memory"]["parts"]["activations"]
    said = CliRunner().invoke(commands, ["plan", str(section.file), "--processes", "4"]).stdout
    assert (
        "processes 4, each with the whole base model and 1 row \N{MULTIPLICATION SIGN} 3 a step (DDP); memory is that of each"
        in said
    )
    refused = CliRunner().invoke(
        commands, ["plan", str(section.file), "--processes", "5"], standalone_mode=False
    )
    assert isinstance(refused.exception, RecipeError)
