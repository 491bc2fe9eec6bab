"""Which of a model's modules LoRA can adapt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
MAMBA_LEFT_OUT = ("out_proj", "conv1d")
"""Modules that PEFT refuses in these models, whose fast kernels go past them (peft 0.21, tuners_utils.py)."""


def adaptable(model: Module) -> list[str]:
    """The names of the modules that LoRA can adapt, in the model's order.

    The output head counts as none: SFTTrainer computes the loss past an adapter on it.
    """
    head, refused = _output_head(model), unadaptable(model)
    return [
        name
        for name, module in model.named_modules()
        if _has_a_layer(module) and module is not head and name.rsplit(".", 1)[-1] not in refused
    ]


def unadaptable(model: Module) -> list[str]:
    """The last names of linear modules that PEFT would take for ordinary ones and fail on."""
    found = [name for name, module in model.named_modules() if not _gives_a_tensor(module)]
    if getattr(getattr(model, "config", None), "model_type", "") in MAMBA:
        found += [name for name, _ in model.named_modules() if name.endswith(MAMBA_LEFT_OUT)]
    return last_names(found)


def default_targets(model: Module) -> list[str]:
    """The modules that PEFT adapts in this architecture when none are named; none where that fails."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    found = sorted(DEFAULTS.get(str(getattr(model.config, "model_type", "")), []))
    return [] if set(found) & set(unadaptable(model)) else found


def is_meant(wanted: str, name: str) -> bool:
    """Whether PEFT takes a module for one that is named in a list."""
    return name == wanted or name.endswith(f".{wanted}")


def unmatched(wanted: str, everything: Iterable[str], known: Iterable[str]) -> str:
    """What to say of a module name that means none of the known ones, which are some of everything."""
    names = last_names(known)
    near = difflib.get_close_matches(wanted.rsplit(".", 1)[-1], names, n=3, cutoff=0.5)
    hint = " or ".join(f"'{name}'" for name in near) if near else "one of " + ", ".join(names[:12])
    there = any(is_meant(wanted, name) for name in everything)
    what = "is no module that LoRA can adapt" if there else "matches no module of this model"
    return f"'{wanted}' {what}; write {hint}"


def last_names(names: Iterable[str]) -> list[str]:
    """The last parts of dotted module names, without layer numbers, sorted and each once."""
    return sorted({name.rsplit(".", 1)[-1] for name in names if name} - set(map(str, range(1000))))


def _has_a_layer(module: Module) -> bool:
    """Whether LoRA has a layer for this kind of module (peft 0.21, tuners/lora/model.py)."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D))


def _output_head(model: Module) -> Module | None:
    get = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None


def _gives_a_tensor(module: Module) -> bool:
    """False for linear modules that give more than a tensor, as some routers of experts do."""
    import torch

    if not isinstance(module, torch.nn.Linear) or type(module).forward is torch.nn.Linear.forward:
        return True
    asked = torch.empty(1, module.in_features, dtype=module.weight.dtype, device=module.weight.device)
    return isinstance(module(asked), torch.Tensor)
