"""The memory that this process takes: now, and at its highest since a mark was set."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def start(kind: str) -> int:
    """Begin a new highest mark on a device of kind "cpu" or "cuda"; gives the bytes taken already."""
    if kind == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return 0
    with suppress(OSError):  # a kernel may refuse; the mark is then that of the whole process: proc(5)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak(kind: str) -> int:
    """The most bytes taken at once since `start`: of tensors on a GPU, of the whole process on a CPU."""
    if kind == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) << 10
