"""Batched text generation: the same prompts, settings and seed for whichever model is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedTokenizerBase


def generate(
    causal: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    settings: Mapping[str, Any],
    batch_size: int,
    seed: int,
    answered: Callable[[int], None],
) -> list[str]:
    """The answer to each prompt (token ids, generation prompt included), as text in the prompts' order.

    Prompts of like length share a batch, padded on the left; `answered` is told how many are done.
    """
    import torch
    from transformers import set_seed

    config = _generation_config(causal, tokenizer, settings)
    stops = {"tokenizer": tokenizer} if "stop_strings" in settings else {}
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    set_seed(seed)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = _padded([prompts[index] for index in batch], tokenizer.pad_token_id, causal.device)
        with torch.no_grad():
            output = causal.generate(**inputs, generation_config=config, **stops)
        written = output[:, inputs["input_ids"].shape[1] :]
        for index, text in zip(batch, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            answers[index] = text
        answered(start + len(batch))
    return answers


def _generation_config(
    causal: Any, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> GenerationConfig:
    """The recipe's settings alone, stopping where the tokenizer's or the model's own end token is written."""
    from transformers import GenerationConfig

    ends = end_tokens(causal, tokenizer)
    return GenerationConfig(**settings, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends)


def end_tokens(causal: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids at which an answer ends: the tokenizer's end token, and the model's own."""
    own = causal.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None})


def _padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, Tensor]:
    """Prompts of shape (batch, longest), padded on the left, with the mask that hides the padding."""
    import torch

    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
