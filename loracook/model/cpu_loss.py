"""The loss on a CPU: of the trained positions alone, each logit computed once.

TRL scores every position on a CPU, padding and masked ones too, and projects hidden states onto the
vocabulary a second time in the backward pass (trl 1.16, add_fused_lm_head). Here the logits of trained
positions are kept in the dtype that they are computed in, until their gradient takes their place: two matrix
products for three. All of them take memory at once, so a large batch of a large vocabulary is left to TRL.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

ROWS = 32
"""Positions whose logits are worked on at once, few enough for a processor's cache."""
MOST = 512 << 20
"""Bytes of logits that are kept at most; TRL's tiles take as much (loracook/estimate/lm_head.py)."""
IGNORED = -100
"""The label of a token that is not in the loss (torch.nn.CrossEntropyLoss)."""


class LogProbabilities(torch.autograd.Function):
    """Of each target: its log probability, the entropy of its distribution, and whether it is the likeliest.

    Takes logits (positions, vocabulary) and targets (positions,). The gradient is that of the probabilities
    alone, and replaces the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three (positions,), in float32 and as booleans."""
        chosen, entropy = (torch.empty(len(targets), dtype=torch.float32) for _ in range(2))
        likeliest = torch.zeros(len(targets), dtype=torch.bool)
        for start in range(0, len(targets), ROWS):
            part = slice(start, start + ROWS)
            scores, target = logits[part].float(), targets[part]
            shares, score = scores.softmax(-1), scores.gather(-1, target.unsqueeze(-1)).squeeze(-1)
            highest = scores.amax(-1)
            normalizer = highest - shares.amax(-1).log()  # faster than logsumexp, of the same numbers
            chosen[part] = score - normalizer
            entropy[part] = normalizer - torch.linalg.vecdot(shares, scores)
            equal = (score == highest).nonzero().squeeze(-1)  # where an earlier word may have the same score
            likeliest[start + equal] = scores[equal].argmax(-1) == target[equal]
        ctx.save_for_backward(logits, targets)
        ctx.mark_non_differentiable(entropy, likeliest)
        return chosen, entropy, likeliest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None]:
        """The gradient of the logits."""
        logits, targets = ctx.saved_tensors
        for start in range(0, len(targets), ROWS):
            part = slice(start, start + ROWS)
            scale, target = gradient[part].float().unsqueeze(-1), targets[part].unsqueeze(-1)
            logits[part] = logits[part].float().softmax(-1).mul_(-scale).scatter_add_(-1, target, scale)
        return logits, None


def keeps_logits(model: PreTrainedModel | PeftModel, positions: int, dtype: torch.dtype) -> bool:
    """Whether the logits of so many positions are kept, computed in a dtype."""
    weight = model.get_output_embeddings().weight
    text = model.config.get_text_config(decoder=True)
    capped = getattr(text, "final_logit_softcapping", None)  # whose gradient needs the logits
    small = positions * len(weight) * dtype.itemsize <= MOST
    return small and capped is None and not weight.requires_grad  # whose gradient TRL sums in float32


def score_trained_positions(model: PreTrainedModel) -> None:
    """Let a model with TRL's fused head score trained positions alone, where their logits can be kept."""
    from trl.trainer.utils import FusedCausalLMOutput

    with_trl = model.forward

    @functools.wraps(type(model).forward)  # whose parameters `generate` asks for
    def forward(
        self: Any, *values: Any, fused_lm_head: bool = False, labels: Any = None, **named: Any
    ) -> Any:
        mask = None if labels is None else labels[:, 1:] != IGNORED
        if not fused_lm_head or mask is None or not keeps_logits(self, int(mask.sum()), _dtype(self)):
            return with_trl(*values, fused_lm_head=fused_lm_head, labels=labels, **named)
        with _projecting(self.get_output_embeddings(), mask):
            outputs = with_trl(*values, **named)
        chosen, entropy, likeliest = LogProbabilities.apply(outputs.logits, labels[:, 1:][mask])
        return FusedCausalLMOutput(
            log_probs=chosen,
            entropy=entropy,
            is_top1=likeliest,
            label_mask=mask,
            aux_loss=outputs.get("aux_loss"),
        )

    model.forward = types.MethodType(forward, model)


def _dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype that logits are computed in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else model.dtype


@contextmanager
def _projecting(head: torch.nn.Module, mask: Tensor) -> Iterator[None]:
    """Let an output head see the hidden states of these positions alone, each before the one it predicts."""
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :-1][mask], *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()
