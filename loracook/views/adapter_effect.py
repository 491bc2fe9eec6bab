"""What an adapter changed, as lines and as JSON: a table by kind of module, or of all modules."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from loracook.errors import quote, shorten
from loracook.model.adapter_effect import Effect, by_layer

HEAD = ("", "modules", "r", "‖ΔW‖", "‖ΔW‖/‖W‖", "effective rank", "amplification")
MOST_CHANGED = 3
MUCH_LESS = 4
"""How far below r every effective rank of a kind is where a lower r is worth trying."""
NAMED = 4


@dataclass(frozen=True)
class AdapterInspection:
    """The effects of an adapter, the base model that they were compared with, and what to know about them."""

    adapter: str
    base_model: str | None
    r: int
    lora_alpha: float
    use_rslora: bool
    effects: Sequence[Effect]
    notes: Sequence[str]


@dataclass(frozen=True)
class KindEffect:
    """The medians over all modules of a kind, None where no module has a value."""

    kind: str
    modules: int
    r: str
    norm: float | None
    ratio: float | None
    effective_rank: float | None
    amplification: float | None


def by_kind(effects: Iterable[Effect]) -> list[KindEffect]:
    """A summary of each kind of module, in the order in which they come."""
    return [
        KindEffect(kind, len(group), _ranks(group), *(_median(group, value) for value in VALUES))
        for kind, group in _kinds(effects).items()
    ]


def as_json(inspection: AdapterInspection) -> dict[str, Any]:
    """The whole inspection as plain values: every module, each kind and layer, notes and advice."""
    plain = asdict(inspection)
    plain["effects"] = [
        asdict(each) | {"ratio": each.ratio, "kind": each.kind} for each in inspection.effects
    ]
    kinds, layers = map(asdict, by_kind(inspection.effects)), map(asdict, by_layer(inspection.effects))
    return plain | {"kinds": list(kinds), "layers": list(layers), "advice": list(_advice(inspection.effects))}


def as_lines(inspection: AdapterInspection) -> list[str]:
    """The medians of each kind of module, the layers that changed most, notes and advice."""
    rows = [(kind.kind, str(kind.modules), kind.r, *_figures(kind)) for kind in by_kind(inspection.effects)]
    several = any(row[1] != "1" for row in rows)
    legend = ["  (medians of each kind of module; --all shows every module)"] if several else []
    return [*_head(inspection), *_table(HEAD, rows), *legend, *_conclusions(inspection)]


def all_lines(inspection: AdapterInspection) -> list[str]:
    """The same with a line for every module."""
    head = (HEAD[0], *HEAD[2:])
    rows = [(each.module, str(each.r or "whole"), *_figures(each)) for each in inspection.effects]
    return [*_head(inspection), *_table(head, rows), *_conclusions(inspection)]


def _head(inspection: AdapterInspection) -> list[str]:
    scaling = "lora_alpha / √r" if inspection.use_rslora else "lora_alpha / r"
    alpha = f"lora_alpha {inspection.lora_alpha:g}"
    return [
        f"{inspection.adapter}: LoRA r {inspection.r}, {alpha}; ΔW = {scaling} · BA",
        *([f"W: {inspection.base_model}"] if inspection.base_model else []),
        "",
    ]


def _conclusions(inspection: AdapterInspection) -> Iterator[str]:
    most = sorted(by_layer(inspection.effects), key=lambda each: each.ratio or each.norm, reverse=True)
    if len(most) > MOST_CHANGED:
        named = (f"{each.layer} ({_percent(each.ratio or 0)})" if each.ratio else each.layer for each in most)
        yield from ("", "changed most: " + ", ".join(list(named)[:MOST_CHANGED]))
    unknown = Counter(each.unknown for each in inspection.effects if each.unknown)
    missing = [f"W is left out for {_modules(count)}: {reason}" for reason, count in unknown.items()]
    for lines in (_advice(inspection.effects), [f"note: {note}" for note in (*inspection.notes, *missing)]):
        yield from ("", *lines) if (lines := list(lines)) else ()


def _advice(effects: Iterable[Effect]) -> Iterator[str]:
    """A hint for kinds of module whose r is far above every effective rank."""
    for kind, group in _kinds(effects).items():
        ranks = [
            (each.r, each.effective_rank) for each in group if each.r and each.effective_rank is not None
        ]
        if ranks and all(used * MUCH_LESS <= r for r, used in ranks):
            r, most = max(r for r, _ in ranks), max(used for _, used in ranks)
            lower = 1 << max(0, int(2 * most) - 1).bit_length()
            above = f"r {r} is far above the effective rank of {quote(kind)}, which is {most:.1f} at most"
            yield f"{above}; try rank_pattern: {{{kind}: {lower}}}"


def _kinds(effects: Iterable[Effect]) -> dict[str, list[Effect]]:
    kinds: dict[str, list[Effect]] = {}
    for effect in effects:
        kinds.setdefault(effect.kind, []).append(effect)
    return kinds


VALUES: tuple[Callable[[Effect], float | None], ...] = (
    lambda each: each.norm,
    lambda each: each.ratio,
    lambda each: each.effective_rank,
    lambda each: each.amplification,
)


def _median(group: Iterable[Effect], value: Callable[[Effect], float | None]) -> float | None:
    known = [found for found in map(value, group) if found is not None]
    return median(known) if known else None


def _ranks(group: Iterable[Effect]) -> str:
    ranks = sorted({each.r for each in group if each.r})
    return "-".join(map(str, dict.fromkeys((ranks[0], ranks[-1])))) if ranks else "whole"


def _figures(each: Effect | KindEffect) -> tuple[str, ...]:
    formats = (
        (each.norm, "{:.3g}"),
        (each.ratio, "{:.2%}"),
        (each.effective_rank, "{:.1f}"),
        (each.amplification, "{:.3g}"),
    )
    return tuple("-" if value is None else text.format(value) for value, text in formats)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cut = [(shorten(name, 80), *values) for name, *values in rows]
    widths = [max(map(len, column)) for column in zip(head, *cut, strict=True)]
    for name, *values in [tuple(head), *cut]:
        yield "  " + "  ".join([name.ljust(widths[0]), *map(str.rjust, values, widths[1:])])


def _percent(share: float) -> str:
    return f"{share:.2%}"


def _modules(count: int) -> str:
    return f"{count:,} module{'s' * (count != 1)}"
