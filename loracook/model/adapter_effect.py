"""What a LoRA adapter changed: the size of each module's ΔW, its rank, and how it relates to W.

ΔW = (alpha/r)·BA (arXiv 2106.09685, section 4) is never formed: two QR decompositions leave an r by r matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, sqrt
from typing import TYPE_CHECKING

from loracook.errors import LoracookError
from loracook.model.base_weights import BaseWeights, Weight
from loracook.model.lora_factors import Factors, MisfitError, SavedAdapter

if TYPE_CHECKING:
    from torch import Tensor

KIND = re.compile(r"(?:[^.]*\.)?\d+(?![^.])|[^.]+")
"""The end of a module's name that all layers share: q_proj, or to_out.0."""
LAYER = re.compile(r"(?:[^.]+\.)*?\d+(?=\.)")
"""The start of a module's name that says which layer it is in: model.layers.7."""
MISSING, SHAPE = "no weight of this name in the base model", "another shape in the base model"
NOT_FINITE = "NaN or infinity in the base model"


@dataclass(frozen=True)
class Effect:
    """What was done to one weight; norms are Frobenius norms.

    `effective_rank` is exp(H) of the entropy H of the singular values of ΔW, divided by their sum (Roy and
    Vetterli 2007), from 0 for no change to r; of a stack of experts it is the mean. `amplification` is
    ‖ΔW‖ / ‖UᵀWV‖ with the singular vectors U and V of ΔW (section 7.3 of the LoRA paper). Without W
    `unknown` says why. A weight that is saved whole has no rank, and its norm is that of its difference.
    """

    module: str
    r: int | None
    norm: float | None
    effective_rank: float | None = None
    base_norm: float | None = None
    amplification: float | None = None
    unknown: str | None = None

    @property
    def ratio(self) -> float | None:
        """‖ΔW‖ / ‖W‖."""
        return self.norm / self.base_norm if self.base_norm and self.norm is not None else None

    @property
    def kind(self) -> str:
        """The last part of the module's name."""
        return KIND.findall(self.module)[-1] if self.module else self.module


@dataclass(frozen=True)
class LayerChange:
    """How much all adapted weights of a layer changed, together: a bar of a chart."""

    layer: str
    norm: float
    ratio: float | None


def effects(adapter: SavedAdapter, base: BaseWeights | None) -> tuple[list[Effect], list[str]]:
    """The effect on every module of an adapter by name, and why others are left out.

    Raises:
        LoracookError: the adapter's settings cannot be followed, or it has no LoRA weights that can.
        DivergedError: a weight of it is not finite.
    """
    found, misfits = [], []
    measured = [partial(_adapted, name=name) for name in adapter.modules]
    for effect in (*measured, *(partial(_replaced, name=name) for name in adapter.whole_weights)):
        try:
            found.append(effect(adapter, base))
        except MisfitError as error:
            misfits.append(str(error))
    if not found:
        fault = next(iter(misfits), "it has no lora_A and lora_B")
        raise LoracookError(f"'{adapter.folder}' has no LoRA weights to show: {fault}")
    return sorted(found, key=lambda effect: _counting(effect.module)), misfits


def by_layer(found: Iterable[Effect]) -> list[LayerChange]:
    """The change of each layer, in order: the data of a chart with a bar for each."""
    layers: dict[str, list[Effect]] = {}
    for effect in found:
        if effect.norm is not None and (layer := LAYER.match(effect.module)):
            layers.setdefault(layer[0], []).append(effect)
    return [_layer(name, layers[name]) for name in sorted(layers, key=_counting)]


def _layer(name: str, inside: Sequence[Effect]) -> LayerChange:
    changed = sqrt(sum(effect.norm**2 for effect in inside if effect.norm))
    bases = [effect.base_norm for effect in inside if effect.base_norm]
    whole = sqrt(sum(norm**2 for norm in bases)) if len(bases) == len(inside) else None
    return LayerChange(name, changed, changed / whole if whole else None)


def _counting(name: str) -> list[tuple[int, str]]:
    """A key that sorts layer 10 after layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def _adapted(adapter: SavedAdapter, base: BaseWeights | None, *, name: str) -> Effect:
    """The effect on a weight that has LoRA factors."""
    import torch

    factors = adapter.factors(name)
    left, left_core = torch.linalg.qr(factors.left)
    right, right_core = torch.linalg.qr(factors.right.mT)
    u, values, v = torch.linalg.svd(left_core @ right_core.mT, full_matrices=False)
    used = values > values.amax() * max(left.shape[1], right.shape[1]) * torch.finfo(values.dtype).eps
    u, v = (left @ u) * used.unsqueeze(1), (right @ v.mT) * used.unsqueeze(1)
    norm = float(values.norm()) * abs(factors.scaling)
    rank = _effective_rank(values)
    r = factors.left.shape[-1]
    module, weight = _weight(factors, base)
    if not isinstance(weight, Weight):
        return Effect(module, r, norm, rank, unknown=weight)
    same, other = _stacks(factors)
    stored = weight.as_stack(len(u))
    if stored == other and (stored != same or factors.transposed):
        u, v = v, u
    base_norm, projected = _projected(weight, u, v)
    if not isfinite(base_norm):
        return Effect(module, r, norm, rank, unknown=NOT_FINITE)
    amplification = norm / projected if projected and norm else None
    return Effect(module, r, norm, rank, base_norm, amplification)


def _weight(factors: Factors, base: BaseWeights | None) -> tuple[str, Weight | str | None]:
    """The name of what was adapted with its W, or with why there is none."""
    if base is None:
        return factors.module, None
    found = {name: weight for name in factors.weights if (weight := base.find(name))}
    quantized = next((weight.quantized for weight in found.values() if weight.quantized), None)
    experts = len(factors.left)
    fitting = [name for name, weight in found.items() if weight.as_stack(experts) in _stacks(factors)]
    if len(fitting) == 1 and not quantized:
        return fitting[0].removesuffix(".weight"), found[fitting[0]]
    reason = f"stored as {quantized}, which is quantized" if quantized else SHAPE if found else MISSING
    return factors.module, reason


def _stacks(factors: Factors) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes that W may have as a stack of matrices: that of ΔW, and of ΔW transposed."""
    experts, height, width = len(factors.left), factors.left.shape[1], factors.right.shape[2]
    return (experts, height, width), (experts, width, height)


def _projected(weight: Weight, u: Tensor, v: Tensor) -> tuple[float, float]:
    """‖W‖ and ‖UᵀWV‖, each over all matrices of the stack."""
    squares, core = 0.0, u.new_zeros(len(u), u.shape[2], v.shape[2])
    for number, rows, block in weight.blocks(len(u)):
        squares += float(block.norm().square())
        core[number] += u[number, rows].mT @ (block @ v[number])
    return sqrt(squares), float(core.norm())


def _effective_rank(values: Tensor) -> float:
    """The mean effective rank of stacked matrices by their singular values, 0 for a matrix of zeros."""
    import torch

    shares = values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    entropy = -torch.special.xlogy(shares, shares).sum(-1)
    return float(torch.where(values.sum(-1) > 0, entropy.exp(), 0.0).mean())


def _replaced(adapter: SavedAdapter, base: BaseWeights | None, *, name: str) -> Effect:
    """The difference of a weight that is saved whole; rows of new tokens, which W lacks, do not count."""
    module = name.removesuffix(".weight")
    weight = base and base.find(name)
    if not weight:
        return Effect(module, None, None, unknown=MISSING if base else None)
    trained = adapter.tensor(adapter.whole_weights[name])
    fits = trained.ndim and weight.shape and trained.shape[1:] == weight.shape[1:]
    if weight.quantized or not fits or len(trained) < weight.shape[0]:
        return Effect(module, None, None, unknown=SHAPE)
    changed = squares = 0.0
    same, dtype = True, adapter.dtype(adapter.whole_weights[name])
    flat = trained.flatten(1) if trained.ndim > 1 else trained.unsqueeze(1)
    for _, rows, block in weight.blocks(1):
        squares += float(block.norm().square())
        changed += float((flat[rows] - block).norm().square())
        same &= bool((flat[rows] == block.to(dtype)).all())
    if not isfinite(squares):
        return Effect(module, None, None, unknown=NOT_FINITE)
    if same:  # PEFT saves embeddings that were resized (save_embedding_layers)
        new = len(trained) - weight.shape[0]
        rows_more = f" and {new:,} new row{'s' * (new != 1)}" if new else ""
        raise MisfitError(f"{module} is saved whole, with the base model's values{rows_more}: it has no ΔW")
    return Effect(module, None, sqrt(changed), base_norm=sqrt(squares))
