"""Free memory and the peak of this process, on Linux, in containers and where there is no /proc."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import psutil
import pytest

from loracook.machine.memory import KERNEL_CACHES, available, keep_freed_memory, peak, reset_peak


def test_a_containers_limit_bounds_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available(tmp_path) == 2_000_000


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
