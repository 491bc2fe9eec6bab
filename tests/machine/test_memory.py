"""Free memory and the peak of this process, on Linux, in containers and where there is no /proc."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loracook.machine.memory import (
    KERNEL_CACHES,
    available,
    keep_freed_memory,
    peak,
    reset_peak,
    tightest_limit,
)


def test_a_containers_limit_bounds_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available(tmp_path) == 2_000_000


def test_the_limit_that_leaves_least_is_named(tmp_path: Path) -> None:
    assert tightest_limit(tmp_path) == ""
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert tightest_limit(tmp_path) == "the container's limit (cgroup) of 2.86 MiB"


@pytest.mark.parametrize("command", ["available()", "tightest_limit()"])
def test_a_limit_of_the_shell_counts(command: str) -> None:
    code = f"from loracook.machine.memory import available, tightest_limit; print({command})"
    shell = f"ulimit -v {2 << 20}; {sys.executable} -c '{code}'"
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.strip()
    assert said == "the limit of ulimit -v of 2 GiB" if "limit" in command else int(said) < 2 << 30


@pytest.mark.parametrize("limit", ["max\n", None])
def test_without_a_containers_limit_all_free_memory_is_available(tmp_path: Path, limit: str | None) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("1000000\n")
    assert available(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.5)


def test_the_peak_is_that_since_the_reset_and_known_without_proc(tmp_path: Path) -> None:
    before = reset_peak("cpu")
    with mmap.mmap(-1, 64 << 20) as block:  # new memory, not what the process freed before
        block.write(bytes(64 << 20))
        assert peak("cpu") - before > 50 << 20
        assert peak("cpu", status=tmp_path / "status") - before > 50 << 20


def test_a_c_library_without_mallopt_keeps_its_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KERNEL_CACHES:
        monkeypatch.setenv(name, "7")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
