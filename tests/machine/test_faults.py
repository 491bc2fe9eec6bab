"""Faults of the machine: a disk that is full, folders that cannot be used."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE

from loracook.errors import MachineError
from loracook.machine.faults import machine_errors, shortage
from loracook.store.files import damage
from loracook.units import size
from tests import processes
from tests.tiny_recipes import twin_file

FULL = "/dev/full"
LARGE = 1_000_000
LIMIT = 12_288


def arrow() -> None:
    with pyarrow.OSFile(FULL, "wb") as file:
        file.write(bytes(LARGE))


WRITERS: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.save(torch.zeros(LARGE), FULL),
    "torch, a small file": lambda: torch.save(torch.zeros(1), FULL),
    "text": lambda: Path(FULL).write_text("x" * LARGE),
    "numpy": lambda: numpy.zeros(LARGE).tofile(FULL),
    "arrow": arrow,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_known_however_a_library_says_it(writer: str) -> None:
    with pytest.raises((OSError, RuntimeError)) as caught:
        WRITERS[writer]()
    assert shortage(caught.value) == "disk"


@pytest.mark.parametrize(
    "words",
    [
        "Flash Attention was requested and is not available",
        "unexpected positional argument",
        "an iostream error is what the row is about",
    ],
)
def test_other_errors_are_not_taken_for_a_full_disk(words: str) -> None:
    assert shortage(RuntimeError(words)) is None


def test_a_full_disk_is_reported_with_its_free_space(tmp_path: Path) -> None:
    said = rf"train: disk full: [\d,.]+ \w+ free at {tmp_path}, .* at {HF_HUB_CACHE}; "
    with pytest.raises(MachineError, match=said), machine_errors("train", tmp_path, advice=""):
        Path(FULL).write_text("x")


def test_memory_that_runs_out_names_the_limit_that_was_hit() -> None:
    code = (
        "from loracook.machine.faults import machine_errors\n"
        "with machine_errors('merge', advice='set less'):\n    bytearray(4 << 30)\n"
    )
    shell = f'ulimit -v {2 << 20}; {sys.executable} -c "{code}"'
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True).stderr
    assert said.endswith("merge: out of memory within the limit of ulimit -v of 2 GiB; set less\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_quota_and_a_limit_on_the_size_of_files_are_a_full_disk(number: int) -> None:
    assert shortage(OSError(number, os.strerror(number))) == "disk"
    assert (
        shortage(RuntimeError(f"I/O error: {os.strerror(number)} (os error {number})")) == "disk"
    )  # safetensors


def test_a_disk_that_fills_up_during_training_leaves_the_checkpoints_before(tmp_path: Path) -> None:
    steps = {"max_steps": 1000, "save_steps": 2}
    recipe = twin_file("opt-350m-lora", tmp_path, train=steps, evaluate=None, dataset={"eval": None})
    process = processes.start("run", recipe.name, cwd=tmp_path)
    until = time.monotonic() + 60
    while not any(tmp_path.glob("runs/*/train-*/checkpoints/checkpoint-2")):
        assert time.monotonic() < until
        time.sleep(0.01)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))  # as `ulimit -f` does
    _, errors = process.communicate()
    assert (process.returncode, errors[:17], errors.count("\n")) == (3, "train: disk full:", 1)
    assert f", files limited to {size(LIMIT)} (ulimit -f); " in errors
    run = next(tmp_path.glob("runs/*"))
    assert "Traceback" in (run / "log.txt").read_text("utf-8")
    kept = next(run.glob("train-*")) / "checkpoints"
    assert "checkpoint-2" in {path.name for path in kept.glob("checkpoint-*")}
    assert all(damage(path) is None for path in kept.glob("checkpoint-*"))


@pytest.mark.parametrize("verb", ["run", "preview"])
def test_a_cache_that_is_a_file_is_reported(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("LORACOOK_CACHE", str(tmp_path / "cache"))
    done = loracook(verb, twin_file("opt-350m-lora", tmp_path, evaluate=None, dataset={"eval": None}))
    told = f"cannot use {tmp_path}/cache/data: not a directory; "
    assert (done.returncode, told in done.stderr, done.stderr.count("\n")) == (3, True, 1)


def loracook(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own, in the folder of its recipe."""
    *verb, recipe = command
    return processes.run(*verb, Path(recipe).name, cwd=Path(recipe).parent)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"
        ),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error, NCCL version 2.27.5\n"
            "ncclUnhandledCudaError: Call to CUDA function failed.\n"
            "Last error:\nCuda failure 2 'out of memory'"
        ),
    ],
)
def test_a_full_gpu_is_known_and_no_limit_of_main_memory_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1 << 30, 1 << 30))
    said = "merge: out of memory; set less"
    with pytest.raises(MachineError, match=said), machine_errors("merge", advice="set less"):
        raise error
