"""Answers and losses of a loaded model, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loracook.model.left_padding import batches_of

if TYPE_CHECKING:
    from datasets import Dataset
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
    on_progress: Callable[[int], None],
) -> list[str]:
    """The answer to each prompt (token ids, generation prompt included), as text in the prompts' order.

    Prompts of similar length share a batch; `on_progress` gets the number of answers.
    """
    import torch
    from transformers import set_seed

    config = _generation_config(causal, tokenizer, settings)
    stop = {"tokenizer": tokenizer} if "stop_strings" in settings else {}
    answers, done = [""] * len(prompts), 0
    batches = list(batches_of(causal, prompts, batch_size))
    set_seed(seed)
    for batch in batches:
        inputs = _left_padded([prompts[index] for index in batch], tokenizer.pad_token_id, causal.device)
        with torch.no_grad():
            output = causal.generate(**inputs, generation_config=config, **stop)
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
        done += len(batch)
        on_progress(done)
    return answers


def mean_loss(
    causal: Any, rows: Dataset, *, pad: int, batch_size: int, on_progress: Callable[[int], None]
) -> float:
    """Mean negative log-likelihood in nats of the trained tokens of `rows` (columns input_ids and labels).

    It is exact over tokens, not averaged over batches. The model must carry TRL's fused head
    (`trl.trainer.utils.add_fused_lm_head`), which scores tokens without a (batch, length, vocabulary) tensor
    of logits.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    packed = "seq_lengths" in rows.column_names
    collate = DataCollatorForLanguageModeling(pad_token_id=pad, padding_free=packed)
    total, tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = collate([rows[index] for index in range(start, min(start + batch_size, len(rows)))])
        inputs = {
            key: value.to(causal.device) if hasattr(value, "to") else value for key, value in batch.items()
        }
        with torch.no_grad():
            output = causal(**inputs, fused_lm_head=True)
        total -= float(output.log_probs.float().sum())
        tokens += int(output.label_mask.sum())
        on_progress(min(start + batch_size, len(rows)))
    return total / max(tokens, 1)


def end_tokens(causal: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids at which an answer ends: the tokenizer's end token, and the model's own."""
    own = causal.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None})


def _generation_config(
    causal: Any, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> GenerationConfig:
    """The recipe's settings alone, stopping at the tokenizer's or the model's own end token."""
    from transformers import GenerationConfig

    ends = end_tokens(causal, tokenizer)
    return GenerationConfig(**settings, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends)


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, Tensor]:
    """Prompts of shape (batch, longest), padded on the left, with the mask that hides the padding."""
    import torch

    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
