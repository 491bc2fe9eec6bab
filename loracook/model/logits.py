"""What models predict for the same texts, and how far one is from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.errors import TRAIN_AGAIN, DivergedError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """How near the logits of a model are to those that it should have."""

    difference: float
    """The largest L2 distance of a text's logits, relative to their norm: 0 is equal."""
    kl_divergence: float
    """The mean over all tokens, in nats, from the expected distribution to the actual one."""
    same_token: float
    """The share of positions where both have the same most likely next token."""


def logits_of(causal: Any, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The logits of a model on some texts of token ids, each (tokens, vocabulary) in float32.

    Raises:
        DivergedError: they are not finite, or all zero, so that nothing can be compared with them.
    """
    import torch

    place = (
        None if causal.device.type == "meta" else causal.device
    )  # accelerate moves it to weights from the disk
    with torch.no_grad():
        inputs = (torch.tensor([list(text)], device=place) for text in texts)
        logits = [causal(input_ids=each).logits[0].float().cpu() for each in inputs]
    if not all(0 < each.norm() < torch.inf for each in logits):
        seen = f"the {causal.dtype} model's logits are NaN, infinite or all zero"
        raise DivergedError(f"{seen}; write merge.dtype: float32, or {TRAIN_AGAIN}")
    return logits


def agreement(expected: Sequence[Tensor], actual: Sequence[Tensor]) -> Agreement:
    """How near one list of logits is to another, text by text."""
    import torch
    from torch.nn.functional import kl_div

    pairs = list(zip(expected, actual, strict=True))
    before, after = (torch.cat(list(side)) for side in zip(*pairs, strict=True))
    logs = (after.log_softmax(-1), before.log_softmax(-1))
    return Agreement(
        difference=max(float((a - b).norm() / a.norm()) for a, b in pairs),
        kl_divergence=max(0.0, float(kl_div(*logs, reduction="batchmean", log_target=True))),
        same_token=float((before.argmax(-1) == after.argmax(-1)).float().mean()),
    )


def effect_kept(base: Sequence[Tensor], tuned: Sequence[Tensor], merged: Sequence[Tensor]) -> float:
    """How much of what an adapter does to the base model's logits a merged model does, too.

    The part of merged - base along tuned - base, relative to that: 1 is all of it, 0 none. Rounding has no
    direction of its own, so it hardly counts.
    """
    effects = [(b - a).double() for a, b in zip(base, tuned, strict=True)]
    changes = [(b - a).double() for a, b in zip(base, merged, strict=True)]
    shared = sum(float((effect * change).sum()) for effect, change in zip(effects, changes, strict=True))
    return shared / sum(float(effect.square().sum()) for effect in effects)
