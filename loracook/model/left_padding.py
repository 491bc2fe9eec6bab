"""Batches of prompts: padded on the left where the model minds the attention mask, else of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from loracook.model.generation_config import own_settings_aside

if TYPE_CHECKING:
    from torch import Tensor

TOKENS, PADDING = 8, 4
"""The length of the prompt that is tried, and of the padding before it."""
NOISE = 1e-3, 8
"""What counts as rounding in the logits: a share of them, or as many units of the model's precision."""


def batches_of(causal: Any, prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """The numbers of at most `size` prompts at a time, the shortest first.

    Models that ignore the mask, as recurrent ones do, would read padding as text: their prompts share a batch
    with those of the same length.
    """
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    lengths = sorted({len(prompt) for prompt in prompts})
    mixed = size == 1 or len(lengths) <= 1 or minds_padding(causal)
    for _, group in groupby(order, key=lambda number: mixed or len(prompts[number])):
        numbers = list(group)
        yield from (numbers[start : start + size] for start in range(0, len(numbers), size))


def minds_padding(causal: Any) -> bool:
    """Whether padding that the mask hides leaves the next token's logits as they are."""
    import torch

    precision = torch.finfo(causal.dtype).eps
    alone, padded = _next_logits(causal, 0), _next_logits(causal, PADDING)
    return bool((alone - padded).norm() <= max(NOISE[0], NOISE[1] * precision) * alone.norm())


def _next_logits(causal: Any, padding: int) -> Tensor:
    """The logits after a prompt, with `padding` masked tokens before it."""
    import torch
    from transformers import GenerationConfig

    size = causal.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(padding + TOKENS) - padding) % size
    mask = (torch.arange(padding + TOKENS) >= padding).long()
    with torch.no_grad(), own_settings_aside(causal):
        output = causal.generate(
            input_ids=ids[None].to(causal.device),
            attention_mask=mask[None].to(causal.device),
            generation_config=GenerationConfig(
                max_new_tokens=1, output_logits=True, return_dict_in_generate=True, pad_token_id=0
            ),
        )
    logits: Tensor = output.logits[0][0].float()
    return logits
