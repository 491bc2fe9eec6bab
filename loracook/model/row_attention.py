"""Attention of rows that are concatenated, one row after the other.

transformers' SDPA and eager attention attend over the whole batch under a mask that keeps its rows apart, and
compute what the mask leaves out as well; FlashAttention, which does not, needs a GPU.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

    Attention = Callable[..., tuple[Tensor, Any]]

ROW_BY_ROW = "_row_by_row"
"""What the name of an implementation ends in that attends so."""
ASKED_BY_NAME = re.compile(r"_attn_implementation\s*(==|!=|in\b|not\b)")
"""Code of a model that does something else under another name, as one whose attention is sparse."""


def attend_row_by_row(model: PreTrainedModel) -> bool:
    """Let a model attend row by row in batches without padding; gives whether it does so."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    name = model.config._attn_implementation
    if separable_attention(model, name) is None:
        return False
    rows = partial(row_attention, name)
    AttentionInterface.register(name + ROW_BY_ROW, torch.compiler.disable(rows))  # rows of other lengths
    AttentionMaskInterface.register(name + ROW_BY_ROW, AttentionMaskInterface()[name])
    model.set_attn_implementation(name + ROW_BY_ROW)
    return True


def separable_attention(model: PreTrainedModel, name: str) -> Attention | None:
    """The implementation of a model's attention if it can be computed row by row, else None."""
    asked = ASKED_BY_NAME.search(inspect.getsource(_module(model)))
    return None if asked else attention_function(model, name)


def attention_function(part: Module, name: str) -> Attention | None:
    """An implementation of attention for a part of a model, None for one that keeps rows apart itself."""
    from transformers import AttentionInterface

    if name == "sdpa":
        sdpa: Attention = AttentionInterface()[name]
        return sdpa
    return getattr(_module(part), "eager_attention_forward", None) if name == "eager" else None


def _module(part: Module) -> ModuleType:
    """The Python module that a part of a model is written in, where each kind has its own eager attention."""
    return sys.modules[type(part).__module__]


def row_attention(
    name: str, module: Module, *attended: Any, cu_seq_lens_q: Tensor | None = None, **named: Any
) -> tuple[Tensor, None]:
    """The attention `name` as transformers calls it, of each of the rows that `cu_seq_lens_q` bounds.

    `attended` are query, key and value (1, heads, tokens, size), and the mask (1, 1, tokens, tokens), which
    some models give by name.
    """
    states, mask = attended[:3], named.pop("attention_mask", attended[-1])
    attention = attention_function(module, name)
    assert attention is not None
    if cu_seq_lens_q is None or mask is None or named.get("position_bias") is not None:
        return attention(module, *states, mask, **named)[0], None
    lengths = cu_seq_lens_q.diff().tolist()
    rows = partial(attention, module, **named)
    return in_rows(rows, states, lengths, masks=_blocks(mask, lengths)), None


def in_rows(
    attention: Attention, states: Sequence[Tensor], lengths: list[int], *, masks: Iterable[Tensor | None]
) -> Tensor:
    """What each row attends to, of these lengths and under its own mask; (1, tokens, heads, size)."""
    import torch

    rows = zip(*(each.split(lengths, dim=2) for each in states), masks, strict=True)
    return torch.cat([attention(*row)[0] for row in rows], dim=1)


def _blocks(mask: Tensor, lengths: list[int]) -> Iterator[Tensor | None]:
    """The block of each row of a mask, which may have other limits in it, such as a sliding window."""
    import torch

    start = 0
    for length in lengths:
        block, start = mask[..., start : start + length, start : start + length], start + length
        plain = torch.equal(block, torch.ones_like(block).tril())
        yield None if plain else block  # a causal one, without which SDPA is faster
