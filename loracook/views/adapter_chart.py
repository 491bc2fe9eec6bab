"""What an adapter changed, as the record of training states it: bars over the layers by kind of module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loracook.model.adapter_effect import Effect
from loracook.store.read_back import NUMBER, check_shape
from loracook.views.adapter_effect import by_kind

EFFECT = {"module": str, "r": int | None, "norm": NUMBER | None, "base_norm": NUMBER | None}
MOST_BARS, MOST_KINDS = 400, 24
"""What is drawn of a stranger's record, or of a model with a module for each expert."""


@dataclass(frozen=True)
class Bars:
    """The ratio of the norm of ΔW to that of W in each module of a kind, in the order of the layers."""

    kind: str
    median: float
    modules: Sequence[tuple[str, float]]
    most: float
    """The largest ratio of all kinds, so that their heights can be compared."""


def bars(record: Mapping[str, Any] | None) -> list[Bars]:
    """The charts of what was changed; none where an earlier version trained, or no W is known."""
    stated = record["result"].get("effects", []) if record else []
    check_shape(stated, [EFFECT])
    effects = [
        Effect(each["module"], each["r"], each["norm"], base_norm=each["base_norm"]) for each in stated
    ]
    found: dict[str, list[tuple[str, float]]] = {}
    for effect in effects:
        if effect.ratio is not None:
            found.setdefault(effect.kind, []).append((effect.module, effect.ratio))
    most = max((ratio for modules in found.values() for _, ratio in modules), default=0.0)
    medians = {kind.kind: kind.ratio for kind in by_kind(effects)}
    charts = (Bars(kind, medians[kind] or 0.0, each[:MOST_BARS], most) for kind, each in found.items())
    return list(charts)[:MOST_KINDS]
