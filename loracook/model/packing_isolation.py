"""Whether a model keeps joined rows apart, tried on the loaded model itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

TOKENS = 8
"""The tokens of each of the two rows that are joined."""
NOISE = 1e-3
"""The largest relative change of the second row that is taken for rounding. Measured on small random models:
at most 1e-8 in 12 families that keep rows apart, 0.006 to 0.39 in falcon, opt, bloom, mpt, mamba and
qwen3_next."""


def keeps_rows_apart(model: PreTrainedModel, autocast: torch.dtype | None = None) -> bool:
    """Whether another first row, joined to a second, leaves what the model makes of the second as it was.

    Rows are joined as for packing and padding-free batches: one after the other, without a mask, each with
    positions from 0. Models that make nothing of positions let every row see those before it.

    Args:
        model: the loaded model; left as it is.
        autocast: the dtype of mixed precision while training, None where there is none.
    """
    import torch

    was_training = model.training
    model.eval()
    mixed = torch.autocast(model.device.type, autocast, enabled=autocast is not None)
    try:
        with torch.no_grad(), mixed, _rows_quantized_alone(model):
            seen = [_second_row(model, first) for first in (TOKENS, 2 * TOKENS)]
    finally:
        model.train(was_training)
    return bool((seen[0] - seen[1]).norm() <= NOISE * seen[0].norm())


@contextmanager
def _rows_quantized_alone(model: PreTrainedModel) -> Iterator[None]:
    """Keep LLM.int8 from choosing outlier columns by all rows together, which joins any rows of a batch."""
    layers = [part.state for part in model.modules() if type(part).__name__ == "Linear8bitLt"]
    thresholds = [layer.threshold for layer in layers]
    for layer in layers:
        layer.threshold = 0.0
    try:
        yield
    finally:
        for layer, threshold in zip(layers, thresholds, strict=True):
            layer.threshold = threshold


def _second_row(model: Any, start: int) -> Tensor:
    """The last hidden states of a second row after a first of the tokens from `start` on."""
    import torch

    size = model.get_input_embeddings().weight.shape[0]
    tokens = torch.cat([torch.arange(start, start + TOKENS), torch.arange(TOKENS)]) % size
    positions = torch.arange(TOKENS).repeat(2)
    device = model.device
    read = model.base_model(
        input_ids=tokens[None].to(device), position_ids=positions[None].to(device), use_cache=False
    )
    hidden: Tensor = read.last_hidden_state[0, TOKENS:].float()
    return hidden
