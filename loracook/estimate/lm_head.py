"""The output head and the loss on fake tensors, as loracook/model/cpu_loss.py computes them, or TRL.

Source: trl 1.16, trl/kernels/chunked_logprob.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loracook.machine import upstream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TILE_TOKENS, TILE_WORDS = 4096, 32768
"""The tile of the logits that TRL's head holds in memory at once."""


def head_forward(model: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The forward pass of head and loss: the hidden states of the scored tokens, and their losses."""
    import torch
    from trl.kernels import chunked_logprob

    weight = model.get_output_embeddings().weight.detach()
    tokens = hidden[:, :-1].reshape(-1, hidden.size(-1))
    if _keeps_logits(model, tokens):
        _logits_forward(weight, tokens)
        return tokens, tokens
    ids = torch.zeros(tokens.size(0), dtype=torch.long)
    outputs = ("log_probs", "entropy", "is_top1")
    losses = chunked_logprob.ChunkedLogProbFunction.apply(
        tokens, weight, None, ids, 1.0, TILE_WORDS, _softcap(model), 1.0, outputs
    )
    return tokens, losses[0]


def head_forward_backward(model: Any, hidden: Tensor) -> None:
    """The forward and backward pass of head and loss, tile by tile as TRL's kernel without Triton.

    TRL's autograd function is not called backward, which would import all of its trainers.
    """
    import torch

    tokens, losses = head_forward(model, hidden)
    weight, softcap = model.get_output_embeddings().weight.detach(), _softcap(model)
    if _keeps_logits(model, tokens):
        torch.mm(_logits_forward(weight, tokens), weight.to(_compute_dtype(hidden)))
        return
    rows = min(len(tokens), TILE_TOKENS)
    ids, tile_losses = torch.zeros(rows, dtype=torch.long), losses.detach()[:rows]
    gradient = torch.zeros(tokens.shape, dtype=torch.float32)
    logits = torch.empty((rows, TILE_WORDS), dtype=_compute_dtype(hidden))
    flags = {"HAS_SOFTCAP": softcap is not None, "HAS_LOGPROB_GRAD": True, "HAS_ENTROPY_GRAD": False}
    scale = {"logit_scale": 1.0, "softcap": softcap or 1.0, "inv_t": 1.0}
    for start in range(0, weight.size(0), TILE_WORDS):
        words = weight[start : start + TILE_WORDS].to(logits.dtype)
        tile = logits[:, : len(words)]
        shape = {"vocab_start": start, "n_cols": len(words), "BLOCK_SIZE": 0}
        upstream.loss_gradient_tile(tile, tile_losses, ids, **shape, **flags, **scale)
        upstream.add_product(gradient[:rows], tile, words)


def _keeps_logits(model: Any, tokens: Tensor) -> bool:
    """Whether training keeps the logits of these tokens on a CPU."""
    from loracook.model.cpu_loss import keeps_logits

    return keeps_logits(model, len(tokens), _compute_dtype(tokens))


def _logits_forward(weight: Tensor, tokens: Tensor) -> Tensor:
    """The logits of tokens and the work on some of them, as loracook/model/cpu_loss.py has them in memory."""
    import torch

    from loracook.model.cpu_loss import ROWS

    dtype = _compute_dtype(tokens)
    logits = torch.mm(tokens.to(dtype), weight.to(dtype).t())
    scores = logits[:ROWS].float()
    torch.linalg.vecdot(scores, scores.softmax(-1))
    return logits


def triton_bytes(hidden: Tensor, autocast: torch.dtype | None) -> int:
    """The bytes of TRL's head where Triton turns each tile in place: the tile, and the float32 gradient."""
    tokens, width = hidden[..., 0].numel(), hidden.size(-1)
    tile = min(tokens, TILE_TOKENS) * TILE_WORDS * (autocast or hidden.dtype).itemsize
    return int(tile + tokens * width * (4 + 2 * hidden.element_size()) + 9 * 4 * tokens)


def _softcap(model: Any) -> float | None:
    """The bound that some models, as gemma, put on their logits."""
    return getattr(model.config.get_text_config(decoder=True), "final_logit_softcapping", None)


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of matrix products: that of mixed precision where it is on."""
    import torch

    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return hidden.dtype
