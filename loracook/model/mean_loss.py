"""The loss of a model on prepared rows, exact over tokens rather than averaged over batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset


def mean_loss(
    causal: Any, rows: Dataset, *, pad: int, batch_size: int, measured: Callable[[int], None]
) -> float:
    """Mean negative log-likelihood in nats of the trained tokens of `rows` (columns input_ids and labels).

    The model must carry TRL's fused head (`trl.trainer.utils.add_fused_lm_head`), which scores tokens without
    a (batch, length, vocabulary) tensor of logits.
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
        measured(min(start + batch_size, len(rows)))
    return total / max(tokens, 1)
