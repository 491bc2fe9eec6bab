"""Whether packed sequences attend to each other, tried on the loaded model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

TOKENS = 8
"""The tokens of each of the two packed sequences."""


def isolates_packed_sequences(model: PreTrainedModel, autocast: torch.dtype | None = None) -> bool:
    """Whether the second of two packed sequences does not depend on the first.

    Sequences are packed as for padding-free batches: one after the other, without a mask, each with positions
    from 0. Models that ignore position ids let every sequence attend to those before it, and convolutions
    reach across the boundary. The gradient tells, which is exactly zero where nothing is passed on: how much
    is passed on does not matter, nor how precisely the model computes.

    Args:
        model: the loaded model; left unchanged.
        autocast: the dtype of mixed precision while training, None where there is none.
    """
    import torch

    was_training, read = model.training, list[Any]()

    def keep(module: Any, arguments: Any, embedded: Tensor) -> Tensor:
        read.append(embedded.detach().requires_grad_())
        return read[-1].clone()  # which the model's code may change in place

    hook = model.get_input_embeddings().register_forward_hook(keep)
    model.eval()
    mixed = torch.autocast(model.device.type, autocast, enabled=autocast is not None)
    try:
        with torch.enable_grad(), mixed:
            second = _second_sequence(model).float().square().sum()
        (gradient,) = torch.autograd.grad(second, read[:1])
    finally:
        hook.remove()
        model.train(was_training)
    return not bool(gradient[0, :TOKENS].any())


def _second_sequence(model: Any) -> Tensor:
    """The last hidden states of the second of two packed sequences."""
    import torch

    size = model.get_input_embeddings().weight.shape[0]
    tokens, positions = torch.arange(2 * TOKENS) % size, torch.arange(TOKENS).repeat(2)
    device = model.device
    output = model.base_model(
        input_ids=tokens[None].to(device), position_ids=positions[None].to(device), use_cache=False
    )
    hidden: Tensor = output.last_hidden_state[0, TOKENS:]
    return hidden
