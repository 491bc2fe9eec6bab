"""Attention of rows that are concatenated, one row after the other.

transformers' SDPA attends over the whole batch under a mask that keeps its rows apart, and computes what the
mask leaves out as well; FlashAttention, which does not, needs a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SDPA, NAME = "sdpa", "sdpa_row_by_row"


def attend_row_by_row(model: PreTrainedModel) -> bool:
    """Let a model that uses SDPA attend row by row in batches without padding; gives whether it does so."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    if model.config._attn_implementation != SDPA:
        return False
    uncompiled = torch.compiler.disable(row_attention)  # other lengths in each batch
    AttentionInterface.register(NAME, uncompiled)
    AttentionMaskInterface.register(NAME, AttentionMaskInterface()[SDPA])
    model.set_attn_implementation(NAME)
    return True


def row_attention(
    module: Any, *attended: Tensor, cu_seq_lens_q: Tensor | None = None, **named: Any
) -> tuple[Tensor, None]:
    """SDPA as transformers calls it, of each of the rows that `cu_seq_lens_q` bounds.

    `attended` are query, key and value (1, heads, tokens, size), and the mask (1, 1, tokens, tokens), of
    which each row takes its own block: a model may have other limits in it, such as a sliding window.
    """
    import torch
    from transformers import AttentionInterface

    sdpa, (*states, mask) = AttentionInterface()[SDPA], attended
    if cu_seq_lens_q is None or mask is None or named.get("position_bias") is not None:
        whole: tuple[Tensor, None] = sdpa(module, *attended, **named)
        return whole
    lengths = cu_seq_lens_q.diff().tolist()
    rows = zip(*(each.split(lengths, dim=2) for each in states), strict=True)
    outputs, start = [], 0
    for length, row in zip(lengths, rows, strict=True):
        block, start = mask[..., start : start + length, start : start + length], start + length
        plain = torch.equal(block, torch.ones_like(block).tril())  # causal, which is faster without a mask
        outputs.append(sdpa(module, *row, None if plain else block, **named)[0])
    return torch.cat(outputs, dim=1), None
