"""What a model is made of: modules grouped by pattern, whether LoRA can adapt them, and what ranks cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loracook.model.parameters import count_parameters, fold_names
from loracook.model.target_modules import adaptable_modules

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch.nn import Module

ADAPTER_BYTES = 4
"""PEFT keeps an adapter in float32 unless the base is quantized (autocast_adapter_dtype)."""


@dataclass(frozen=True)
class ModuleGroup:
    """Modules of one pattern: class, number, the parameters of one, and whether LoRA can adapt them."""

    pattern: str
    kind: str
    number: int
    parameters: int
    adaptable: bool


@dataclass(frozen=True)
class RankCost:
    """An adapter of rank `r`: trainable and all parameters, their ratio in percent, and bytes of its file."""

    r: int
    trainable: int
    all: int
    percent: float
    adapter_bytes: int


def module_groups(model: Module) -> list[ModuleGroup]:
    """The modules with parameters of their own, repeated layers folded, in the model's order."""
    owners = {name: part for name, part in model.named_modules() if list(part.parameters(recurse=False))}
    patterns = dict(zip(owners, fold_names(model, owners), strict=True))
    numbers = Counter(patterns.values())
    first = {pattern: name for name, pattern in reversed(patterns.items())}
    adaptable = set(adaptable_modules(model))
    return [
        _group(pattern, owners[name], number=numbers[pattern], adaptable=name in adaptable)
        for pattern, name in reversed(first.items())
    ]


def rank_costs(model: Module, ranks: Sequence[int], adapter: LoraConfig) -> list[RankCost]:
    """What each rank of an adapter costs.

    Raises:
        RejectedError: no module has one of its names.
    """
    counts = {r: count_parameters(model, replace(adapter, r=r)) for r in ranks}
    return [
        RankCost(r, count.trainable, count.all, count.percent, count.trainable * ADAPTER_BYTES)
        for r, count in counts.items()
    ]


def _group(pattern: str, module: Module, *, number: int, adaptable: bool) -> ModuleGroup:
    parameters = sum(int(part.numel()) for part in module.parameters(recurse=False))
    return ModuleGroup(pattern, type(module).__name__, number, parameters, adaptable)
