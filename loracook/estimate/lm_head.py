"""The output head and the loss on fake tensors, as TRL 1.16 computes them: trl/kernels/chunked_logprob.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TILE_TOKENS, TILE_WORDS = 4096, 32768
"""The part of the logits that TRL's head has in memory at once (trl/kernels/chunked_logprob.py)."""


def losses(model: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The output head and the loss, forward: the hidden states of the scored tokens, and their losses."""
    import torch
    from trl.kernels import chunked_logprob as kernel

    weight, softcap = model.get_output_embeddings().weight.detach(), _softcap(model)
    tokens = hidden[:, :-1].reshape(-1, hidden.size(-1))
    ids = torch.zeros(tokens.size(0), dtype=torch.long)
    wanted = ("log_probs", "entropy", "is_top1")
    found = kernel.ChunkedLogProbFunction.apply(
        tokens, weight, None, ids, 1.0, TILE_WORDS, softcap, 1.0, wanted
    )
    return tokens, found[0]


def score(model: Any, hidden: Tensor) -> None:
    """The output head and the loss, forward and backward, tile by tile as TRL's kernel without Triton.

    Its autograd function is not called backward, which would import all of TRL's trainers.
    """
    import torch
    from trl.kernels import chunked_logprob as kernel

    tokens, found = losses(model, hidden)
    weight, softcap = model.get_output_embeddings().weight.detach(), _softcap(model)
    few = min(len(tokens), TILE_TOKENS)
    ids, each = torch.zeros(few, dtype=torch.long), found.detach()[:few]
    gradient = torch.zeros(tokens.shape, dtype=torch.float32)
    tiles = torch.empty((few, TILE_WORDS), dtype=_computed(hidden))
    facts = {"HAS_SOFTCAP": softcap is not None, "HAS_LOGPROB_GRAD": True, "HAS_ENTROPY_GRAD": False}
    scale = {"logit_scale": 1.0, "softcap": softcap or 1.0, "inv_t": 1.0}
    for start in range(0, weight.size(0), TILE_WORDS):
        words = weight[start : start + TILE_WORDS].to(tiles.dtype)
        tile = tiles[:, : len(words)]
        shape = {"vocab_start": start, "n_cols": len(words), "BLOCK_SIZE": 0}
        kernel._backward_tile(tile, 0, ids, each, each, each, each, **shape, **facts, **scale)
        kernel._addmm_fp32(gradient[:few], tile, words)


def _softcap(model: Any) -> float | None:
    """What a model bends its logits with, as gemma does."""
    return getattr(model.config.get_text_config(), "final_logit_softcapping", None)


def _computed(hidden: Tensor) -> torch.dtype:
    """The dtype that matrices are multiplied in: that of mixed precision where it is on."""
    import torch

    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return hidden.dtype


def triton_bytes(hidden: Tensor, autocast: torch.dtype | None) -> int:
    """The bytes of TRL's head where Triton folds each tile in place: the tile, and the float32 gradient."""
    tokens, width = hidden[..., 0].numel(), hidden.size(-1)
    tile = min(tokens, TILE_TOKENS) * TILE_WORDS * (autocast or hidden.dtype).itemsize
    return int(tile + tokens * width * (4 + 2 * hidden.element_size()) + 9 * 4 * tokens)
