"""A model's modules in words: which ones LoRA can adapt, and what each rank costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loracook.model.modules import ModuleGroup, RankCost
from loracook.model.parameters import WeightGroup
from loracook.units import size
from loracook.views.unadapted import unadapted_lines


@dataclass(frozen=True)
class Inspection:
    """What a model is made of, and LoRA on it: `adaptable` counts modules by the last part of their names."""

    name_or_path: str
    model_type: str
    parameters: int
    modules: Sequence[ModuleGroup]
    default_targets: Sequence[str]
    target_modules: str | Sequence[str]
    excluded: Sequence[str]
    unadapted: Sequence[WeightGroup]
    ranks: Sequence[RankCost]

    @property
    def adaptable(self) -> dict[str, int]:
        """How many modules LoRA can adapt by the last part of their names: q_proj, fc1 …"""
        numbers: Counter[str] = Counter()
        for group in self.modules:
            if group.adaptable:
                numbers[group.pattern.rsplit(".", 1)[-1]] += group.number
        return dict(numbers)


def as_lines(inspection: Inspection) -> list[str]:
    """The modules, those that LoRA can adapt by name, and a table of ranks."""
    targets = inspection.target_modules
    default = ", ".join(inspection.default_targets) or f"none for '{inspection.model_type}'"
    excluded = f" except {', '.join(inspection.excluded)}" if inspection.excluded else ""
    return [
        f"{inspection.name_or_path}: {inspection.model_type}, {inspection.parameters:,} parameters",
        "",
        *_modules(inspection.modules),
        "",
        "LoRA can adapt: " + ", ".join(f"{name} ({count})" for name, count in inspection.adaptable.items()),
        f"PEFT's default target_modules: {default}",
        "",
        f"LoRA on {targets if isinstance(targets, str) else ', '.join(targets)}{excluded}:",
        f"{'r':>6}{'trainable params':>20}{'all params':>18}{'trainable':>12}{'adapter':>12}",
        *map(_rank, inspection.ranks),
        *unadapted_lines(inspection.unadapted, inspection.parameters),
    ]


def _modules(groups: Sequence[ModuleGroup]) -> list[str]:
    """A line a group; the class comes last, since its name may be of any length."""
    count = max(len(str(group.number)) for group in groups)
    parameters = max(len(f"{group.parameters:,}") for group in groups)
    pattern = max(len(group.pattern) for group in groups)
    return [
        f"  {group.number:>{count}} x {group.parameters:>{parameters},}"
        f"  {'LoRA' if group.adaptable else '':<4}  {group.pattern:<{pattern}}  {group.kind}"
        for group in groups
    ]


def _rank(cost: RankCost) -> str:
    share, adapter = f"{cost.percent:.3f}%", size(cost.adapter_bytes)
    return f"{cost.r:>6}{cost.trainable:>20,}{cost.all:>18,}{share:>12}{adapter:>12}"
