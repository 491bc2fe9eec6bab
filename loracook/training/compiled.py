"""Layers compiled one by one by torch.compile, for batches of any length.

The whole model, which `SFTConfig.torch_compile` compiles, is compiled anew for each length, some minutes at a
time; all layers share what one of them is compiled to. What was compiled is kept in the cache for later runs.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import MachineError
from loracook.machine.devices import device_here
from loracook.recipe.recipe import Recipe
from loracook.training.sharding import layers

if TYPE_CHECKING:
    from torch.nn import Module

KEYS = ("torch_compile", "torch_compile_backend", "torch_compile_mode")
COMPILERS = ("c++", "g++", "clang++")
INDUCTOR, CACHE = "inductor", "TORCHINDUCTOR_CACHE_DIR"
LAYERS = "layers are compiled one by one, with sums in another order"


def settings(recipe: Recipe) -> dict[str, Any] | None:
    """What torch.compile is to do with each layer, None where a recipe does not compile."""
    train = recipe["train"]
    if not train.get("torch_compile"):
        return None
    backend, mode = train.get("torch_compile_backend", INDUCTOR), train.get("torch_compile_mode")
    return {"dynamic": True, "backend": backend, "mode": mode}


def check_compiler(recipe: Recipe) -> None:
    """Raise MachineError where a recipe compiles and nothing here can; torch says so in the first step."""
    if (chosen := settings(recipe)) is None or chosen["backend"] != INDUCTOR:
        return
    if device_here().kind == "cuda":
        there, needed = find_spec("triton") is not None, "triton; run: pip install triton"
    else:
        there = any(map(shutil.which, (os.environ.get("CXX") or COMPILERS[0], *COMPILERS)))
        needed = "a C++ compiler; install g++"
    if not there:
        raise MachineError(f"train.torch_compile requires {needed}, or write torch_compile: false")


def compile_layers(model: Module, recipe: Recipe, cache: Path) -> list[str]:
    """Compile a model's layers as they are first called, where the recipe says so; gives what is done."""
    if (chosen := settings(recipe)) is None:
        return []
    os.environ.setdefault(CACHE, str(cache / "inductor"))
    for layer in layers(model):
        layer.compile(**chosen)
    return [LAYERS]
