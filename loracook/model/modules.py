"""What a model is made of: modules folded by pattern, those LoRA can adapt, and what each rank costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loracook.model.parameters import count, fold
from loracook.model.target_modules import adaptable, unadaptable

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
    """The modules with parameters of their own, repeated layers folded, in the model's order."""
    owners = {name: part for name, part in module.named_modules() if list(part.parameters(recurse=False))}
    folded = dict(zip(owners, fold(module, owners), strict=True))
    numbers = Counter(folded.values())
    first = {pattern: name for name, pattern in reversed(folded.items())}
    known = set(adaptable(module))
    return [
        _part(pattern, owners[name], numbers[pattern], name in known)
        for pattern, name in reversed(first.items())
    ]


def ranks(module: Module, wanted: Sequence[int], targets: str | Sequence[str]) -> list[Rank]:
    """What each rank costs on `targets`: module names, or "all-linear" for all of them that LoRA can adapt.

    Raises:
        ValueError: no module has one of the names.
    """
    from peft import LoraConfig

    named = targets if isinstance(targets, str) else list(targets)
    left_out = unadaptable(module) if targets == "all-linear" else None
    found = [
        (r, count(module, LoraConfig(r=r, target_modules=named, exclude_modules=left_out))) for r in wanted
    ]
    return [
        Rank(r, counts.trainable, counts.everything, counts.percent, counts.trainable * ADAPTER_BYTES)
        for r, counts in found
    ]


def _part(pattern: str, module: Module, number: int, takes_lora: bool) -> Part:
    parameters = sum(int(part.numel()) for part in module.parameters(recurse=False))
    return Part(pattern, type(module).__name__, number, parameters, takes_lora)
