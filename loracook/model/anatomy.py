"""What a model is made of: modules folded by pattern, those LoRA can adapt, and what each rank costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loracook.model.counts import count, fold

if TYPE_CHECKING:
    from torch.nn import Module

ADAPTER_BYTES = 4
"""PEFT keeps an adapter in float32 unless the base is quantized (autocast_adapter_dtype)."""


@dataclass(frozen=True)
class Part:
    """Modules of one pattern: class, number, the parameters of one, and whether LoRA adapts them."""

    pattern: str
    kind: str
    number: int
    parameters: int
    adaptable: bool


@dataclass(frozen=True)
class Rank:
    """What an adapter of rank `r` takes: parameters, their share of all in percent, and bytes of its file."""

    r: int
    trainable: int
    everything: int
    percent: float
    adapter_bytes: int


def anatomy(module: Module) -> list[Part]:
    """The modules with parameters of their own, repeated layers folded, in the model's order.

    The output head counts as none for LoRA: SFTTrainer computes the loss past an adapter on it.
    """
    head = getattr(module, "get_output_embeddings", lambda: None)()
    owners = {name: part for name, part in module.named_modules() if list(part.parameters(recurse=False))}
    folded = dict(zip(owners, fold(module, owners), strict=True))
    numbers = Counter(folded.values())
    first = {pattern: name for name, pattern in reversed(folded.items())}
    return [_part(pattern, owners[name], numbers[pattern], head) for pattern, name in reversed(first.items())]


def is_adaptable(module: Module) -> bool:
    """Whether LoRA has a layer for this kind of module (peft 0.21, tuners/lora/model.py)."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D))


def default_targets(model_type: str) -> list[str]:
    """The modules that PEFT adapts in this architecture when none are named; none without a default."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    return sorted(DEFAULTS.get(model_type, []))


def ranks(module: Module, wanted: Sequence[int], targets: str | Sequence[str]) -> list[Rank]:
    """What each rank costs on `targets`: module names, or "all-linear" for a transformers model.

    Raises:
        ValueError: no module has one of the names.
    """
    from peft import LoraConfig

    named = targets if isinstance(targets, str) else list(targets)
    found = [(r, count(module, LoraConfig(r=r, target_modules=named))) for r in wanted]
    return [
        Rank(r, counts.trainable, counts.everything, counts.percent, counts.trainable * ADAPTER_BYTES)
        for r, counts in found
    ]


def _part(pattern: str, module: Module, number: int, head: Module | None) -> Part:
    parameters = sum(int(part.numel()) for part in module.parameters(recurse=False))
    adaptable = is_adaptable(module) and module is not head
    return Part(pattern, type(module).__name__, number, parameters, adaptable)
