"""How much memory devices have: the usual ones, by name, and the one at hand."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from loracook.errors import LoracookError

GIB = 1 << 30
UNITS = {"": GIB, "G": GIB, "GB": GIB, "GIB": GIB, "MB": GIB >> 10, "MIB": GIB >> 10}
STATED = {
    "T4": 15_360, "P100": 16_280, "V100-16GB": 16_160, "V100-32GB": 32_510, "A10": 23_028, "A10G": 23_028,
    "A30": 24_576, "L4": 23_034, "L40S": 46_068, "A40": 46_068, "A6000": 49_140, "A100-40GB": 40_960,
    "A100-80GB": 81_920, "H100": 81_559, "H200": 143_771, "B200": 183_359, "RTX3060": 12_288,
    "RTX3080": 10_240, "RTX3090": 24_576, "RTX4070": 12_282, "RTX4080": 16_376, "RTX4090": 24_564,
    "RTX5090": 32_607,
}  # fmt: skip
"""MiB that nvidia-smi states for each; where memory corrects errors, less than what is on the box."""
MAKERS = re.compile(r"NVIDIA|Tesla|GeForce|SXM\d|PCIe|HBM\d|RTX(?=[\s_-]*A)", re.IGNORECASE)
"""Words that torch and nvidia-smi print around the name that a device goes by."""
NO_BFLOAT16 = ("T4", "P100", "V100-16GB", "V100-32GB")
"""GPUs older than compute capability 8.0, the first with bfloat16 (CUDA programming guide)."""
CONTEXT = GIB * 3 // 4
"""What CUDA takes for itself on a GPU before the first tensor; 0.4 to 0.7 GB are usual."""


@dataclass(frozen=True)
class Device:
    """Where a recipe is to run: the kind ("cpu" or "cuda"), bytes for tensors, whether bfloat16 is there."""

    name: str
    kind: str
    bytes: int
    bfloat16: bool = True


def named_device(name: str | None, memory: str | None) -> Device | None:
    """The device that the user named, or a GPU with so much memory, or None when neither is given.

    Raises:
        LoracookError: the name or the size is not known.
    """
    if memory is not None and name is not None:
        raise LoracookError("--device and --memory both say how much memory there is; write one of them")
    if memory is not None:
        return Device(f"a GPU with {memory}", "cuda", _parsed(memory) - CONTEXT)
    return None if name is None else _named(name)


def _named(name: str) -> Device:
    known = {_bare(model): model for model in STATED}
    sized = {f"{bare}{round(STATED[model] / 1024)}GB": model for bare, model in known.items()}
    model = (sized | known).get(_bare(name))
    if model is None:
        raise LoracookError(f"no device '{name}' is known; {_hint(_bare(name))}")
    return Device(name, "cuda", (STATED[model] << 20) - CONTEXT, model not in NO_BFLOAT16)


def _bare(name: str) -> str:
    """A device's name without makers' words and what stands between words: A10080GB."""
    return re.sub(r"[\s_-]", "", MAKERS.sub("", name)).upper()


def _hint(bare: str) -> str:
    longer = [model for model in STATED if bare and _bare(model).startswith(bare)]
    if longer:
        return f"did you mean {' or '.join(longer)}"
    return f"write --memory 24GB, or one of {', '.join(STATED)}"


def device_here() -> Device:
    """The GPU that torch would train on, else this machine's own memory."""
    import torch

    if torch.cuda.is_available():
        free, bfloat16 = torch.cuda.mem_get_info()[0], torch.cuda.is_bf16_supported(including_emulation=False)
        return Device(torch.cuda.get_device_name(), "cuda", free, bfloat16)
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
    size = round(float(found[1]) * UNITS[found[2].upper()])
    if size <= CONTEXT:
        raise LoracookError(f"CUDA alone takes more than '{text}'; write --memory 24GB")
    return size


def _lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="ascii") as file:
        return file.read().splitlines()
