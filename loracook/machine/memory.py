"""Memory: what is free, what this process took at its peak, and how its allocator behaves."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loracook.units import size

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30
"""Bytes; no block is larger, so glibc never returns one. Gain and cost: benchmarks/README.md."""
KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "48", "LRU_CACHE_CAPACITY": "48"}
"""How many matrix products oneDNN and torch's bridge to it cache code and working memory for. Each new batch
length adds about thirty, and the default limit is 1,024: memory would grow with every step."""
CGROUP, PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self")


def available(cgroup: Path = CGROUP) -> int:
    """Bytes of main memory that this process could still take, within every limit that is set."""
    import psutil

    rooms = (room for _, room in _limits(cgroup).values())
    return max(min([int(psutil.virtual_memory().available), *rooms]), 0)


def tightest_limit(cgroup: Path = CGROUP) -> str:
    """The limit that leaves less than the machine has free, with its size; empty where there is none."""
    import psutil

    limits = _limits(cgroup)
    name = min(limits, key=lambda name: limits[name][1], default="")
    tight = name and limits[name][1] < psutil.virtual_memory().available
    return f"{name} of {size(limits[name][0])}" if tight else ""


def _limits(cgroup: Path) -> dict[str, tuple[int, int]]:
    """The limits on memory that are set: the bytes of each, and what it leaves (cgroup v2, setrlimit(2))."""
    import resource

    import psutil

    limits = {}
    with suppress(OSError, ValueError):  # no cgroup, or no limit: "max"
        limit, used = (int((cgroup / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        limits["the container's limit (cgroup)"] = limit, limit - used
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        limits["the limit of ulimit -v"] = most, most - psutil.Process().memory_info().vms
    return limits


def give_back() -> None:
    """Free what nothing uses any more: models in circles of references, and what torch keeps of a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")  # only if this process has imported it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Baseline:
    """The bytes in use before something is measured, and the peak that was reached before."""

    in_use: int
    peak: int


def baseline(device: str, process: Path = PROCESS) -> Baseline:
    """Start a new peak on a device of kind "cuda", "mps" or "cpu", where the system can do that.

    Memory that was freed is given back first: what is measured would reuse it, and not be seen.
    """
    give_back()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return Baseline(int(torch.cuda.memory_allocated()), peak(device))
    import psutil

    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    with suppress(OSError):  # proc(5); where it is refused, the peak stays that of the whole process
        (process / "clear_refs").write_text("5", encoding="ascii")
    return Baseline(int(psutil.Process().memory_info().rss), peak(device, process))


def peak_above(before: Baseline, device: str, process: Path = PROCESS) -> int | None:
    """The most bytes in use at once beyond those of the baseline; None where an earlier peak hides them."""
    highest = peak(device, process)
    return highest - before.in_use if highest > before.peak else None


def peak(device: str, process: Path = PROCESS) -> int:
    """Peak bytes of tensors on a CUDA GPU, else of the whole process (resident set)."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    with suppress(OSError):
        lines = (process / "status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) << 10
    import resource

    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum << 10  # bytes on macOS, KiB elsewhere


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks for the next step, and limit the kernels that oneDNN caches.

    Call it before torch is imported. Other C libraries are left as they are, and so is what the user has
    set. Source: mallopt(3), oneDNN's page on its primitive cache.
    """
    for name, limit in KERNEL_CACHES.items():
        os.environ.setdefault(name, limit)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, LARGE)


@contextmanager
def infrequent_gc() -> Iterator[None]:
    """Make Python's garbage collector run a hundred times less often.

    Importing torch and transformers creates a million objects that stay; scanning them again and again takes
    a sixth of the time of a short command. Not for training, where it would delay freeing tensors.
    """
    threshold = gc.get_threshold()
    gc.set_threshold(100 * threshold[0], *threshold[1:])
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
