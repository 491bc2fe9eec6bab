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
from tests.plans import config_recipe, plan
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


def kitchen(folder: Path, *, lora: dict[str, Any] | None = None, **train: Any) -> Path:
    """A folder with a recipe in float32 whose rows do not fill the last step of an epoch."""
    dataset = {"rows": 26, "eval": {"path": None, "rows": 5}}
    sections = {"train": TRAIN | train, "lora": lora or {}, "dataset": dataset}
    twin_file("quickstart", folder, merge=None, push=None, evaluate=None, **sections)
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


def together(*folders: Path, runs: str, arguments: tuple[str, ...] = ()) -> list[tuple[int | None, str, str]]:
    """The exit code and output of a run whose processes are started beside each other, one in each folder."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(len(folders))}
    ranks = []
    for number, folder in enumerate(folders):
        own = {"RANK": str(number), "LOCAL_RANK": "0" if len({*folders}) > 1 else str(number)}
        if len({*folders}) > 1:
            own["LORACOOK_CACHE"] = str(folder / "cache")
        command = ("run", "recipe.yaml", "--runs", runs, *arguments)
        ranks.append(processes.Process(command, folder, place | own))
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
    "a last step between two log entries": {"logging_steps": 2},
    "checkpointing": {"activation_checkpointing": True},
    "reentrant checkpointing": {
        "activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True},
    },
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
    assert " a step in each of 2 processes, with the whole base model (DDP)\n" in ended[0][1]
    assert "processes 2 (ddp), with the same weights; first loss " in ended[0][1]
    assert ended[1][1:] == ("", "")


def test_layers_in_shards_train_the_same_bits(tmp_path: Path) -> None:
    """With PEFT's magnitudes, biases and whole modules, which read the weights of a layer, and in evaluations."""
    lora = {"use_dora": True, "bias": "lora_only", "modules_to_save": ["lm_head"]}
    folder = kitchen(tmp_path, lora=lora, **VARIANTS["evaluations"], activation_checkpointing=True)
    for strategy in ("ddp", "fsdp2"):
        ended = together(folder, folder, runs=strategy, arguments=("--strategy", strategy))
        assert [code for code, *_ in ended] == [0, 0], ended
        assert read_record(trained(folder, strategy))["result"]["processes"]["strategy"] == strategy
    whole, sharded = trained(folder, "ddp"), trained(folder, "fsdp2")
    assert (sharded / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert losses(sharded) == losses(whole)


AS_ON_GPUS = """
import accelerate, sys
from loracook.__main__ import main

accelerate.Accelerator.multi_device = property(lambda self: True)
sys.argv = ["loracook", "run", "recipe.yaml", "--strategy", "fsdp2"]
main()
"""


def test_shards_are_trained_where_accelerate_refuses_to_wrap_them(tmp_path: Path) -> None:
    """It does so on GPUs (1.15, Accelerator.prepare_model), which the property stands for."""
    folder = kitchen(tmp_path)
    (folder / "gpus.py").write_text(AS_ON_GPUS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    ran = subprocess.run(
        [*command, "gpus.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert read_record(trained(folder, "runs"))["result"]["processes"]["strategy"] == "fsdp2"


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


def started(folder: Path, until: str = "checkpoints/checkpoint-3") -> subprocess.Popen[str]:
    """A run in two processes whose training has made a file."""
    command = [sys.executable, "-m", "loracook", "run", "recipe.yaml", "--processes", "2"]
    run = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=-1, stderr=-1, text=True
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob(f"runs/*/train-*/{until}")):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()
        time.sleep(0.001)
    return run


LONG = {"max_steps": 30, "save_steps": 1, "save_total_limit": 3}
KILLED = LONG | {"max_steps": 8}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The adapter of a training that no process of which is killed."""
    folder = kitchen(tmp_path_factory.mktemp("undisturbed"), **KILLED)
    assert [code for code, *_ in together(folder, folder, runs="runs")] == [0, 0]
    return (trained(folder, "runs") / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "moment", ["checkpoints/checkpoint-3", "checkpoints/unfinished/checkpoint-5", "adapter"]
)
def test_a_killed_process_ends_all_and_the_same_command_goes_on(
    tmp_path: Path, undisturbed: bytes, moment: str
) -> None:
    """In a step, in a checkpoint, and after the last step, when the first process alone has work to do."""
    folder = kitchen(tmp_path, **KILLED)
    run = started(folder, until=moment)
    os.kill(ranks(folder)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert (run.returncode, ranks(folder)) == (3, {})
    assert said.splitlines()[-1].startswith("a training process was killed")
    again = together(folder, folder, runs="runs")
    assert ([code for code, *_ in again], "resuming from checkpoint-" in again[0][1]) == ([0, 0], True), again
    assert (trained(folder, "runs") / WEIGHTS).read_bytes() == undisturbed


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


def beside(*folders: Path) -> list[processes.Process]:
    """A process in each folder, which train together and have made a checkpoint."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(len(folders))}
    each = [
        processes.Process(("run", "recipe.yaml"), folder, place | {"RANK": rank, "LOCAL_RANK": rank})
        for folder, rank in zip(folders, "01", strict=True)
    ]
    deadline = time.monotonic() + 120
    while not list(folders[0].glob("runs/*/train-*/checkpoints/checkpoint-3")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return each


def test_a_signal_to_one_process_stops_all_and_nothing_counts_as_trained(tmp_path: Path) -> None:
    """As where one of several machines is to go: its processes alone are told."""
    folder = kitchen(tmp_path, **LONG)
    both = beside(folder, folder)
    both[1].terminate()
    said = [each.communicate(timeout=60) for each in both]
    assert [each.returncode for each in both] == [75, 75], said
    assert not list(folder.glob("runs/*/train-*/record.json"))


def test_a_machine_without_the_checkpoint_to_resume_from_is_told(tmp_path: Path) -> None:
    folders = [kitchen(tmp_path / name, **LONG) for name in ("first", "second")]
    both = beside(*folders)
    both[0].terminate()
    for each in both:
        each.communicate(timeout=60)
    ended = together(*folders, runs="runs")
    told = re.compile(
        r"checkpoint-\d+ is not there on every machine; use a folder that they share: --runs DIR$"
    )
    assert [(code, bool(told.search(said.strip()))) for code, _, said in ended] == [(3, True)] * 2, ended


def test_the_processes_of_one_machine_meet_on_it_whatever_its_name_is(tmp_path: Path) -> None:
    folder = kitchen(tmp_path, **LONG)
    run = started(folder)
    environment = Path(f"/proc/{ranks(folder)[1]}/environ").read_text()
    run.terminate()
    run.communicate(timeout=60)
    assert "\0MASTER_ADDR=127.0.0.1\0" in environment


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
    assert four["strategy"] == "ddp"
    assert one["steps"] == four["steps"]
    assert "gradient_buckets" not in one["memory"]["parts"]
    assert four["memory"]["parts"]["gradient_buckets"] == four["memory"]["parts"]["adapter"]
    assert four["memory"]["parts"]["activations"] < one["memory"]["parts"]["activations"]
    said = CliRunner().invoke(commands, ["plan", str(section.file), "--processes", "4"]).stdout
    assert (
        "1 row \N{MULTIPLICATION SIGN} 3 a step in each of 4 processes, with the whole base model (DDP); memory is that of each"
        in said
    )
    refused = CliRunner().invoke(
        commands, ["plan", str(section.file), "--processes", "5"], standalone_mode=False
    )
    assert isinstance(refused.exception, RecipeError)


REFUSED: dict[str, dict[str, Any]] = {
    "FSDP2 corrupts quantized weights (bitsandbytes issue 1945)": {"quantization": {"load_in_4bit": True}},
    "cannot be used with shards": {"train": {"torch_compile": True}},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_sharded_is_refused_by_name(tmp_path: Path, message: str) -> None:
    file = twin_file("quickstart", tmp_path, **REFUSED[message])
    arguments = ["plan", str(file), "--processes", "2", "--strategy", "fsdp2"]
    refused = CliRunner().invoke(commands, arguments, standalone_mode=False)
    assert isinstance(refused.exception, RecipeError)
    assert str(refused.exception).endswith(f"{message}; remove it, or use --strategy ddp")


def test_shards_are_chosen_where_the_whole_model_does_not_fit(tmp_path: Path) -> None:
    train = {"max_steps": 10, "per_device_train_batch_size": 4}
    file = config_recipe(tmp_path, "meta-llama__Llama-2-7b-hf", {"target_modules": "all-linear"}, train=train)
    parts, chosen = {}, {}
    for strategy, device in (("ddp", "A100-80GB"), ("auto", "A100-80GB"), ("auto", "RTX3080")):
        planned = plan(file, "--processes", "4", "--strategy", strategy, "--device", device)
        parts[device], chosen[strategy, device] = planned["memory"]["parts"], planned["strategy"]
    assert [*chosen.values()] == ["ddp", "ddp", "fsdp2"]
    whole, sharded = parts["A100-80GB"], parts["RTX3080"]
    layer = 2 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    assert whole["weights"] - sharded["weights"] == 32 * layer * 3 // 4
    assert sharded["gathered_layers"] == 2 * layer
    assert {name: sharded[name] for name in ("adapter", "activations")} == {
        name: whole[name] for name in ("adapter", "activations")
    }
