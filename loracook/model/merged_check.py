"""Whether a merged model is what was trained: its weights, its tokens, and what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError
from loracook.model.logits import agreement, effect_kept, logits_of

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from torch.nn import Module

TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05}
"""The largest difference between the merged model's logits and the adapter's, relative to their L2 norm:
bfloat16 keeps 8 bits (a rounding error of 2^-9 = 0.2 %) and a merge rounds every adapted weight once."""
SMALLEST_EFFECT = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 0.02}
"""The least difference between the adapter's logits and the base model's that is more than rounding."""
KEPT_WITHIN = {"float32": 0.02, "float16": 0.4, "bfloat16": 0.4}
"""How far from 1 the share may be that a merged model keeps of what the adapter does."""
WIDER = "write merge.dtype: float32"


@dataclass(frozen=True)
class Expected:
    """What a merged model has to predict for some texts: logits without and with the adapter."""

    dtype: str
    base: Sequence[Tensor]
    tuned: Sequence[Tensor]

    def compare(self, merged: Sequence[Tensor]) -> dict[str, Any]:
        """How near the logits of a merged model are, as plain values.

        Raises:
            LoracookError: they are not the adapter's, within the rounding of the merged weights.
        """
        near = agreement(self.tuned, merged)
        effect = agreement(self.base, self.tuned).difference
        kept = effect_kept(self.base, self.tuned, merged) if effect >= SMALLEST_EFFECT[self.dtype] else None
        if not near.difference <= TOLERANCE[self.dtype]:
            raise LoracookError(
                f"the merged model's logits differ from the adapter's by {near.difference:.1%} of their "
                f"norm, more than the {TOLERANCE[self.dtype]:.1%} of rounding to {self.dtype}; {WIDER}"
            )
        if kept is not None and not abs(kept - 1) <= KEPT_WITHIN[self.dtype]:
            raise LoracookError(
                f"the merged model does {kept:.0%} of what the adapter does to the logits; {WIDER}"
            )
        return {
            "logits_difference": near.difference,
            "kl_divergence": near.kl_divergence,
            "same_token": near.same_token,
            "adapter_difference": effect,
            "effect_kept": kept,
        }


def expected_logits(tuned: PeftModel, texts: Sequence[Sequence[int]]) -> Expected:
    """What a model with an adapter predicts for texts of token ids, and without it."""
    dtype = str(tuned.get_base_model().dtype).removeprefix("torch.")
    with tuned.disable_adapter():
        base = logits_of(tuned, texts)
    return Expected(dtype, base, logits_of(tuned, texts))


def unlike(merged: Module, base: Module) -> str | None:
    """The first parameter that a merged model has otherwise than its base model; None for none.

    Embeddings and output layer may have grown by tokens, and be no longer tied.
    """
    outlines = dict(base.named_parameters(remove_duplicate=False))
    weights = dict(merged.named_parameters(remove_duplicate=False))
    if names := sorted(outlines.keys() ^ weights.keys()):
        return f"only one of the two has {names[0]}"
    for name, outline in outlines.items():
        if weights[name].shape[1:] != outline.shape[1:] or weights[name].shape[:1] < outline.shape[:1]:
            return f"{name} has the shape {list(weights[name].shape)}, not {list(outline.shape)}"
    return None
