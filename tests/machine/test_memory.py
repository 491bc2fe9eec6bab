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
    Baseline,
    available,
    baseline,
    keep_freed_memory,
    peak_above,
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


def test_the_peak_is_that_above_the_baseline() -> None:
    before = baseline("cpu")
    with mmap.mmap(-1, 64 << 20) as block:  # new memory, not what the process freed before
        block.write(bytes(64 << 20))
        taken = peak_above(before, "cpu")
    assert taken is not None
    assert taken > 50 << 20


def test_what_takes_nothing_new_has_no_peak_of_its_own() -> None:
    assert peak_above(Baseline(5 << 20, 1 << 60), "cpu") is None


AFTER_A_HIGHER_PEAK = """
import mmap, sys
from pathlib import Path
from loracook.machine.memory import baseline, peak_above
def take(size):
    with mmap.mmap(-1, size << 20) as block:
        block.write(bytes(size << 20))
take(128)
before = baseline("cpu", Path(sys.argv[1]))
for size in (32, 256):
    take(size)
    print((peak_above(before, "cpu", Path(sys.argv[1])) or 0) >> 20)
"""


@pytest.mark.parametrize(("process", "hidden"), [("/proc/self", False), ("/proc/missing", True)])
def test_an_earlier_peak_hides_a_lower_one_only_where_none_can_be_started(process: str, hidden: bool) -> None:
    # a process inherits the peak of the one that starts it, so a small one does
    command = ["sh", "-c", '"$@"; exit', "sh", sys.executable, "-c", AFTER_A_HIGHER_PEAK, process]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    low, high = map(int, said)
    assert (low == 0) is hidden
    assert high > 250


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_memory_that_was_freed_and_is_used_again_counts() -> None:
    """In a process of its own: what other tests have left in the heap would keep it from being given back."""
    program = (
        "from loracook.machine.memory import baseline, peak_above\n"
        "take = lambda: [b'x' * 100_000 for _ in range(1_000)]\n"  # too small for glibc to map each by itself
        "take(); before, blocks = baseline('cpu'), take(); print(peak_above(before, 'cpu'))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(said) > 50_000_000


def test_a_c_library_without_mallopt_keeps_its_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KERNEL_CACHES:
        monkeypatch.setenv(name, "7")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
