"""What this machine offers recipes: versions, devices, kernels, disk, hub, and what each lack prevents."""

import logging
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loracook.machine.devices import GIB, device_here, visible_gpus
from loracook.machine.memory import available
from loracook.machine.versions import INSTALL, installed, requirements
from loracook.store.files import free_bytes, nearest_existing

LOW_DISK = 10 * GIB
KERNELS = {"flash_attn": "flash_attention_2", "flash_attn_interface": "flash_attention_3"}
"""Modules with an attention kernel, and the attn_implementation that selects it."""

CLUSTERS = {"sbatch": "slurm", "sky": "skypilot", "kubectl": "kubernetes"}
"""Programs that hand jobs in, and what `loracook launch` calls where they go."""


@dataclass(frozen=True)
class Finding:
    """One fact about this machine; `means` says what it prevents and what to do, empty if all is well."""

    what: str
    found: str
    means: str = ""


def findings(cache: Path) -> Iterator[Finding]:
    """All findings, in the order of an installation; the hub is asked last."""
    yield Finding("python", platform.python_version())
    yield from _packages()
    if find_spec("torch") is not None:
        yield from (_device(), _precision(), _attention(), _quantization(), _processes())
    yield from (_cluster(), _sweeps())
    if find_spec("psutil") is not None:
        yield Finding("memory", f"{available() / GIB:.1f} GiB available")
    yield _disk(cache)
    yield from _hub()


def _packages() -> Iterator[Finding]:
    if find_spec("packaging") is None:  # the whole training stack depends on it
        yield Finding("training", "not installed", f"recipes can be validated, not run; {INSTALL}")
        return
    try:
        supported = requirements()
    except PackageNotFoundError:
        yield Finding("loracook", "not installed as a package", "run: pip install -e . in its folder")
        return
    for requirement in supported:
        yield package_finding(requirement, installed(requirement.name))


def package_finding(requirement: Any, version: str | None) -> Finding:
    """The finding on one package, a `packaging.requirements.Requirement`; pre-releases are unsupported."""
    name, specifier = requirement.name, requirement.specifier
    supported = ",".join(sorted(map(str, specifier), reverse=True))  # >= before <
    if version is None:
        return Finding(name, "not installed", INSTALL)
    found = f"{version} (supported: {supported})" if supported else version
    if specifier.contains(version, prereleases=False):
        return Finding(name, found)
    return Finding(name, found, f"untested, arguments may differ; run: pip install '{name}{supported}'")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        gpus = [
            f"{torch.cuda.get_device_name(gpu)} ({torch.cuda.mem_get_info(gpu)[0] / GIB:.1f} GiB free)"
            for gpu in range(torch.cuda.device_count())
        ]
        return Finding("device", ", ".join(gpus))
    if torch.backends.mps.is_available():
        return Finding("device", "Apple GPU (MPS), which shares main memory")
    means = "training runs on the CPU: fine for small models, takes days for 7 billion parameters"
    return Finding("device", f"no GPU; {os.cpu_count()} CPU cores", means)


def _processes() -> Finding:
    count = max(1, visible_gpus())
    found = f"{count}, one for each GPU" if count > 1 else "1"
    return Finding("processes", f"{found}; others: loracook run RECIPE --processes N")


def _cluster() -> Finding:
    found = next((name for program, name in CLUSTERS.items() if shutil.which(program)), "torchrun")
    return Finding("cluster", f"loracook launch RECIPE --on {found} --nodes 2 --gpus 8 --write FILE")


def _sweeps() -> Finding:
    version = installed("ray")
    means = "" if version else 'run: pip install "loracook[sweep]"'
    return Finding(
        "sweeps", f"Ray {version}: loracook sweep SWEEP.yaml" if version else "Ray is not installed", means
    )


def _precision() -> Finding:
    device = device_here()
    if device.kind == "cuda":
        found = "bfloat16 and float16" if device.bfloat16 else "float16, no bfloat16"
        return Finding("precision", found, device.bfloat16_advice)
    if not device.bfloat16:
        return Finding("precision", "float32", device.bfloat16_advice)
    return Finding("precision", "bfloat16", device.float16_advice)


def _attention() -> Finding:
    kernels = [name for module, name in KERNELS.items() if find_spec(module) is not None]
    means = "" if kernels else "flash attention is not installed; use attn_implementation: sdpa"
    return Finding("attention", ", ".join(["eager", "sdpa", *kernels]), means)


def _quantization() -> Finding:
    if find_spec("bitsandbytes") is None:
        return Finding("quantization", "none", "recipes with a quantization section need bitsandbytes")
    import bitsandbytes

    backends = ", ".join(sorted(bitsandbytes.supported_torch_devices))
    return Finding("quantization", f"bitsandbytes for {backends}")


def _disk(cache: Path) -> Finding:
    folder = nearest_existing(cache)
    free = free_bytes(folder)
    means = "" if free > LOW_DISK else "a model of 7 billion parameters needs 15 GB, twice that with a merge"
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        means = "the cache is not writable; set another folder: LORACOOK_CACHE=DIR"
    return Finding("disk", f"{free / GIB:.1f} GiB free at {folder}", means)


def _hub() -> Iterator[Finding]:
    if find_spec("huggingface_hub") is None:
        yield Finding("hub", "huggingface_hub is not installed", f"hub models cannot be used; {INSTALL}")
        return
    from huggingface_hub import constants, get_token

    token = get_token() is not None
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "HF_HUB_OFFLINE is set", "only cached and local models and data can be used")
    else:
        yield _hub_answer(token)
    if not token:
        yield Finding("token", "none", "gated models and uploads require one; run: hf auth login")


def _hub_answer(token: bool) -> Finding:
    """Whether the hub answers, and which account the token belongs to; the token itself is never shown."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    from loracook.hub.failures import rejection

    api = HfApi()
    try:
        if token:
            return Finding("hub", f"{api.endpoint}, logged in as {api.whoami()['name']}")
        api.model_info("openai-community/gpt2", timeout=10)
    except (HTTPError, OSError, ValueError) as error:  # of the network, the hub, or what a proxy answers
        logging.getLogger("loracook").exception("the hub did not answer")
        if token and rejection(error):
            return Finding("hub", f"{api.endpoint} rejects the token", "log in again: hf auth login")
        means = "only cached and local models and data can be used"
        return Finding("hub", f"{api.endpoint} cannot be reached ({type(error).__name__})", means)
    return Finding("hub", f"{api.endpoint} answers")
