"""Devices that recipes train on: common GPUs by name, and the device of this machine."""

import os
import re
from dataclasses import dataclass

from loracook.errors import LoracookError
from loracook.machine import upstream
from loracook.machine.memory import available

GIB = 1 << 30
UNITS = {"": GIB, "G": GIB, "GB": GIB, "GIB": GIB, "MB": GIB >> 10, "MIB": GIB >> 10}
MEMORY_MIB = {
    "T4": 15_360, "P100": 16_280, "V100-16GB": 16_160, "V100-32GB": 32_510, "A10": 23_028, "A10G": 23_028,
    "A30": 24_576, "L4": 23_034, "L40S": 46_068, "A40": 46_068, "A6000": 49_140, "A100-40GB": 40_960,
    "A100-80GB": 81_920, "H100": 81_559, "H200": 143_771, "B200": 183_359, "RTX3060": 12_288,
    "RTX3080": 10_240, "RTX3090": 24_576, "RTX4070": 12_282, "RTX4080": 16_376, "RTX4090": 24_564,
    "RTX5090": 32_607,
}  # fmt: skip
"""MiB that nvidia-smi reports; with ECC memory, less than the nominal size."""
VENDOR_WORDS = re.compile(r"NVIDIA|Tesla|GeForce|SXM\d|PCIe|HBM\d|RTX(?=[\s_-]*A)", re.IGNORECASE)
"""Words that torch and nvidia-smi print around a GPU's common name."""
NO_BFLOAT16 = ("T4", "P100", "V100-16GB", "V100-32GB")
"""GPUs below compute capability 8.0, the first with bfloat16 (CUDA programming guide)."""
CONTEXT = GIB * 3 // 4
"""Bytes that CUDA itself takes on a GPU before the first tensor; usually 0.4 to 0.7 GB."""

DRIVERS = ("/proc/driver/nvidia/version", "/dev/dxg", "/dev/kfd")
"""What a driver of GPUs that torch calls CUDA makes: NVIDIA's, that of Windows under WSL, and AMD's."""


@dataclass(frozen=True)
class Device:
    """Where a recipe runs: its kind ("cuda", "mps" or "cpu"), free bytes, and whether it has bfloat16."""

    name: str
    kind: str
    bytes: int
    bfloat16: bool = True

    @property
    def bfloat16_advice(self) -> str:
        """What a recipe in bfloat16 meets here and what to set instead; empty where bfloat16 is fine."""
        if self.bfloat16:
            return ""
        fault, dtype, half = "has no bfloat16", "float16", ", train.fp16: true"
        if self.kind == "cpu":  # where float32 is many times faster; benchmarks/README.md
            fault, dtype, half = "computes bfloat16 slowly", "float32", ""
        advice = f"set base_model.dtype: {dtype}, train.bf16: false{half}"
        return f"{self.name} {fault}; {advice}, and bnb_4bit_compute_dtype: {dtype} where it is set"

    @property
    def float16_advice(self) -> str:
        """What to use instead of float16 here; empty where float16 is fine."""
        return "" if self.kind == "cuda" else "float16 trains badly without CUDA; use bfloat16 or float32"


def named_device(name: str | None, memory: str | None) -> Device | None:
    """The device named by --device, or a GPU of the size given by --memory, or None when neither is given.

    Raises:
        LoracookError: the name or the size is unknown.
    """
    if memory is not None and name is not None:
        raise LoracookError("--device conflicts with --memory; use one of them")
    if memory is not None:
        return Device(f"a GPU with {memory}", "cuda", _gpu_bytes(memory))
    if name is None:
        return None
    models = {_normalized(model): model for model in MEMORY_MIB}
    sized = {f"{key}{round(MEMORY_MIB[model] / 1024)}GB": model for key, model in models.items()}
    model = (sized | models).get(_normalized(name))
    if model is None:
        raise LoracookError(f"unknown device '{name}'; {_suggestion(_normalized(name))}")
    return Device(name, "cuda", (MEMORY_MIB[model] << 20) - CONTEXT, model not in NO_BFLOAT16)


def _normalized(name: str) -> str:
    """A device's name without vendor words and separators: A10080GB."""
    return re.sub(r"[\s_-]", "", VENDOR_WORDS.sub("", name)).upper()


def _suggestion(prefix: str) -> str:
    if longer := [model for model in MEMORY_MIB if prefix and _normalized(model).startswith(prefix)]:
        return f"did you mean {' or '.join(longer)}?"
    return f"use --memory, as in --memory 24GB, or one of {', '.join(MEMORY_MIB)}"


def device_here() -> Device:
    """The device that torch trains on here: a CUDA GPU, an Apple GPU (MPS), else the CPU."""
    import torch

    if torch.cuda.is_available():
        free, bfloat16 = torch.cuda.mem_get_info()[0], torch.cuda.is_bf16_supported(including_emulation=False)
        return Device(torch.cuda.get_device_name(), "cuda", free, bfloat16)
    if torch.backends.mps.is_available():  # shares main memory with the CPU
        limit = int(torch.mps.recommended_max_memory())
        return Device("this machine's Apple GPU (MPS)", "mps", min(limit, available()))
    return Device("this machine's CPU", "cpu", available(), upstream.cpu_has_bfloat16())


def visible_gpus() -> int:
    """How many CUDA GPUs this machine has; does not import torch where the driver is missing."""
    if not any(map(os.path.exists, DRIVERS)) and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return 0
    import torch

    return int(torch.cuda.device_count())


def computed_on() -> dict[str, str | int]:
    """What decides the order of floating-point sums, and so the last bits of a result, besides versions."""
    import torch

    device = device_here()
    if device.kind == "cuda":
        return {"device": device.name, "kernels": ".".join(map(str, torch.cuda.get_device_capability()))}
    if device.kind != "cpu":
        return {"device": device.name}
    kernels = torch.backends.cpu.get_cpu_capability()
    return {"device": device.name, "kernels": kernels, "threads": torch.get_num_threads()}


def usable_bytes(text: str) -> int:
    """What a limit of this size, as in 3GB, leaves for tensors on the device of this machine."""
    size = _gpu_bytes(text) if device_here().kind == "cuda" else _parsed_bytes(text)
    if not size:
        raise LoracookError(f"'{text}' is no memory at all; write more, as in --memory 24GB")
    return size


def _gpu_bytes(text: str) -> int:
    size = _parsed_bytes(text)
    if size <= CONTEXT:
        raise LoracookError(f"'{text}' is less than CUDA itself takes; write more, as in --memory 24GB")
    return size - CONTEXT


def _parsed_bytes(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in UNITS:
        raise LoracookError(f"'{text}' is not a memory size; write it as in --memory 24GB")
    return round(float(match[1]) * UNITS[match[2].upper()])
