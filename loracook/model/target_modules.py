"""Which of a model's modules LoRA can adapt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
MAMBA_EXCLUDED = ("out_proj", "conv1d")
"""Modules that PEFT rejects in these models, whose fast kernels bypass them (peft 0.21, tuners_utils.py)."""


def adaptable_modules(model: Module) -> list[str]:
    """The names of the modules that LoRA can adapt, in the model's order.

    The output head is left out: SFTTrainer computes the loss from its weight and bypasses an adapter on it.
    """
    head, rejected = _output_head(model), rejected_names(model)
    return [
        name
        for name, module in model.named_modules()
        if _has_lora_layer(module) and module is not head and name.rsplit(".", 1)[-1] not in rejected
    ]


def rejected_names(model: Module) -> list[str]:
    """The last names of linear modules that PEFT accepts as targets and then fails on."""
    names = [name for name, module in model.named_modules() if not _returns_tensor(module)]
    if getattr(getattr(model, "config", None), "model_type", "") in MAMBA:
        names += [name for name, _ in model.named_modules() if name.endswith(MAMBA_EXCLUDED)]
    return last_names(names)


def default_targets(model: Module) -> list[str]:
    """The modules that PEFT adapts in this architecture when none are named; empty where that fails."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    names = sorted(DEFAULTS.get(str(getattr(model.config, "model_type", "")), []))
    return [] if set(names) & set(rejected_names(model)) else names


def matches(target: str, name: str) -> bool:
    """Whether PEFT applies a target from a list to the module of this name."""
    return name == target or name.endswith(f".{target}")


def unmatched(target: str, names: Iterable[str], candidates: Iterable[str]) -> str:
    """The message for a target that matches none of the candidates, which are some of all module names."""
    known = last_names(candidates)
    near = difflib.get_close_matches(target.rsplit(".", 1)[-1], known, n=3, cutoff=0.5)
    hint = " or ".join(f"'{name}'" for name in near) if near else "one of " + ", ".join(known[:12])
    exists = any(matches(target, name) for name in names)
    what = "is not a module that LoRA can adapt" if exists else "matches no module of this model"
    return f"'{target}' {what}; write {hint}"


def last_names(names: Iterable[str]) -> list[str]:
    """The last parts of dotted module names, without layer numbers, sorted and each once."""
    return sorted({name.rsplit(".", 1)[-1] for name in names if name} - set(map(str, range(1000))))


def _has_lora_layer(module: Module) -> bool:
    """Whether LoRA has a layer for this class of module (peft 0.21, tuners/lora/model.py)."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D))


def _output_head(model: Module) -> Module | None:
    get = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None


def _returns_tensor(module: Module) -> bool:
    """False for linear modules that return more than a tensor, as some routers, or take no single vector."""
    import torch

    if not isinstance(module, torch.nn.Linear) or type(module).forward is torch.nn.Linear.forward:
        return True
    inputs = torch.empty(1, module.in_features, dtype=module.weight.dtype, device=module.weight.device)
    try:
        return isinstance(module(inputs), torch.Tensor)
    except RuntimeError:
        return False
