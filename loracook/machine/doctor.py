"""What a machine brings for recipes: versions, devices, kernels, disk, hub, and what each lack means."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from loracook.machine.devices import GIB, available_memory
from loracook.store.files import free_bytes, nearest_existing

LOW_DISK = 10 * GIB
STACK = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "gguf", "jinja2")
KERNELS = {"flash_attn": "flash_attention_2", "flash_attn_interface": "flash_attention_3"}
"""Modules that bring an attention kernel, by the name a recipe asks for it with."""


@dataclass(frozen=True)
class Finding:
    """One fact about this machine; `means` says what it keeps a recipe from, and is empty if all is well."""

    what: str
    found: str
    means: str = ""


def findings(cache: Path) -> Iterator[Finding]:
    """Everything that is looked at, in the order of a set-up; the hub is asked last."""
    yield _python()
    yield from _packages()
    if find_spec("torch") is not None:
        for look in (_device, _precision, _attention, _quantization):
            yield look()
    yield _memory()
    yield _disk(cache)
    yield from _hub()


def _python() -> Finding:
    found = platform.python_version()
    return Finding("python", found, "" if sys.version_info >= (3, 11) else "loracook needs 3.11 or newer")


def _packages() -> Iterator[Finding]:
    ranges = _ranges()
    for name in STACK:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "not installed", 'nothing can be trained; run: pip install "loracook[train]"')
            continue
        asked = ranges.get(name, "")
        means = "" if within(found, asked) else f"loracook is made for {asked}; arguments may have changed"
        yield Finding(name, f"{found} (made for {asked})" if asked else found, means)


def _ranges() -> dict[str, str]:
    """The version ranges that loracook's own metadata states for the training stack."""
    try:
        stated = requires("loracook") or []
    except PackageNotFoundError:
        return {}
    found = (re.match(r"([\w-]+)([^;]*);.*extra == .train", text) for text in stated)
    return {match[1].lower(): match[2].strip() for match in found if match}


def within(found: str, asked: str) -> bool:
    """Whether a version lies in a range like `>=1.16,<2`; versions are compared by their numbers."""
    compared: dict[str, Callable[[list[int], list[int]], bool]] = {
        ">=": lambda a, b: a >= b,
        "<": lambda a, b: a < b,
        "==": lambda a, b: a == b,
    }
    bounds = (re.match(r"(>=|==|<)\s*(.+)", part.strip()) for part in asked.split(","))
    return all(compared[bound[1]](_numbers(found), _numbers(bound[2])) for bound in bounds if bound)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text.split("+")[0])][:3]


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        means = "training runs on the CPU: fine for small models, days for 7 billion parameters"
        return Finding("device", f"no GPU; {os.cpu_count()} CPU cores", means)
    cards = [
        f"{torch.cuda.get_device_name(card)} ({torch.cuda.mem_get_info(card)[0] / GIB:.1f} GiB free)"
        for card in range(torch.cuda.device_count())
    ]
    return Finding("device", ", ".join(cards))


def _precision() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "precision", "bfloat16 on the CPU", "float16 trains badly here; keep bfloat16 or float32"
        )
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding("precision", "bfloat16 and float16")
    return Finding("precision", "float16", "write train.fp16: true and base_model.dtype: float16")


def _attention() -> Finding:
    kernels = [name for module, name in KERNELS.items() if find_spec(module) is not None]
    means = "" if kernels else "attn_implementation: flash_attention_2 and _3 cannot be used; sdpa can"
    return Finding("attention", ", ".join(["eager", "sdpa", *kernels]), means)


def _quantization() -> Finding:
    if find_spec("bitsandbytes") is None:
        return Finding("quantization", "none", "a recipe with a quantization section cannot run")
    import bitsandbytes

    backends = ", ".join(sorted(bitsandbytes.supported_torch_devices))
    return Finding("quantization", f"bitsandbytes for {backends}")


def _memory() -> Finding:
    return Finding("memory", f"{available_memory() / GIB:.1f} GiB free")


def _disk(cache: Path) -> Finding:
    place = nearest_existing(cache)
    free = free_bytes(place)
    means = "" if free > LOW_DISK else "a model of 7 billion parameters takes 15 GB, and as much again merged"
    if not (place.is_dir() and os.access(place, os.W_OK)):
        means = "nothing can be kept there; name a folder that can be written to: LORACOOK_CACHE=DIR"
    return Finding("disk", f"{free / GIB:.1f} GiB free at {place}", means)


def _hub() -> Iterator[Finding]:
    if find_spec("huggingface_hub") is None:
        yield Finding("hub", "huggingface_hub is not installed", "hub ids cannot be used")
        return
    from huggingface_hub import constants, get_token

    token = get_token() is not None
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "HF_HUB_OFFLINE is set", "only models and data that are kept here can be used")
    else:
        yield _asked(token)
    if not token:
        yield Finding("token", "none", "gated models and push need one; run: hf auth login")


def _asked(token: bool) -> Finding:
    """Whether the hub answers, and to whom the token belongs; the token itself is never shown."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        if token:
            return Finding("hub", f"{api.endpoint} knows you as {api.whoami()['name']}")
        api.model_info("openai-community/gpt2", timeout=10)
    except Exception as error:  # whatever goes wrong on the way to the hub is what is to be told
        means = "hub ids work only where they are kept here already; local models and data work"
        return Finding("hub", f"{api.endpoint} does not answer ({type(error).__name__})", means)
    return Finding("hub", f"{api.endpoint} answers")
