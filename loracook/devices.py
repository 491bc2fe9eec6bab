"""How much memory devices have: those that are sold, by name, and the one at hand."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from loracook.errors import LoracookError

GIB = 1 << 30
UNITS = {"": GIB, "G": GIB, "GB": GIB, "GIB": GIB, "MB": GIB >> 10, "MIB": GIB >> 10}
SOLD = {
    "T4": 16, "P100": 16, "V100-16GB": 16, "V100-32GB": 32, "A10": 24, "A10G": 24, "A30": 24, "L4": 24,
    "L40S": 48, "A40": 48, "A6000": 48, "A100-40GB": 40, "A100-80GB": 80, "H100": 80, "H200": 141,
    "B200": 180, "RTX3060": 12, "RTX3080": 10, "RTX3090": 24, "RTX4070": 12, "RTX4080": 16, "RTX4090": 24,
    "RTX5090": 32,
}  # fmt: skip
"""Memory in GB as the makers' data sheets state it."""
CONTEXT = GIB * 3 // 4
"""What CUDA takes for itself on a GPU before the first tensor; 0.4 to 0.7 GB are usual."""


@dataclass(frozen=True)
class Device:
    """Where a recipe is to run: its kind ("cpu" or "cuda") and the bytes that tensors may take there."""

    name: str
    kind: str
    bytes: int


def named_device(name: str | None, memory: str | None) -> Device | None:
    """The device that the user named, or a GPU with so much memory, or None when neither is given.

    Raises:
        LoracookError: the name or the size is not known.
    """
    if memory is not None:
        return Device(f"a GPU with {memory}", "cuda", _parsed(memory) - CONTEXT)
    if name is None:
        return None
    wanted = re.sub(r"[\s_-]", "", name).upper()
    known = {re.sub(r"-", "", key): size for key, size in SOLD.items()}
    if wanted not in known:
        raise LoracookError(f"no device '{name}' is known; write --memory 24GB, or one of {', '.join(SOLD)}")
    return Device(name, "cuda", known[wanted] * GIB - CONTEXT)


def device_here() -> Device:
    """The GPU that torch would train on, else this machine's own memory."""
    import torch

    if torch.cuda.is_available():
        return Device(torch.cuda.get_device_name(), "cuda", torch.cuda.mem_get_info()[0])
    return Device("this machine's CPU", "cpu", available_memory())


def available_memory() -> int:
    """Bytes of main memory that a new process could take, a container's limit minded."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        free = min(free, int(limit[0]) - int(used[0]))
    return max(free, 0)


def _parsed(text: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in UNITS:
        raise LoracookError(f"'{text}' is no amount of memory; write --memory 24GB")
    return round(float(found[1]) * UNITS[found[2].upper()])


def _lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="ascii") as file:
        return file.read().splitlines()
