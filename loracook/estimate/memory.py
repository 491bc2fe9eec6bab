"""The memory that training, evaluating and merging take at their peaks, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.estimate.fake_step import Walk, walk
from loracook.estimate.weight_bytes import Weights, optimizer_bytes, own_bytes, trained_bytes
from loracook.model.parameters import is_base

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PretrainedConfig

    from loracook.estimate.batches import Batch


HOLES, HOLES_A_MODULE, MOST_HOLES = 0.25, 0.003, 0.9
"""What glibc's heap takes beside the tiles of the loss, as a share of them, where freed memory is kept for
speed (loracook/machine/memory.py): an aligned block needs more room than it leaves, and every adapted
module leaves small ones between. Fitted to the set-ups of benchmarks/memory.py, where the same set-up
scatters by 6 %."""
LIBRARIES = 50 << 20
"""What torch's libraries take for themselves in the first step on a CPU. Measured: benchmarks/memory.py."""


@dataclass(frozen=True)
class Memory:
    """Bytes of each part while training; `peak` of all that is alive at once.

    The parts do not add up to the peak, since activations and the loss's working memory come and go.
    """

    weights: int
    quantization_constants: int
    adapter: int
    optimizer_state: int
    gradients: int
    activations: int
    logits_and_loss: int
    working: int
    allocator: int
    peak: int

    @property
    def kept(self) -> int:
        """What stays from step to step."""
        return self.weights + self.quantization_constants + self.adapter + self.optimizer_state


def training(
    tuned: PeftModel, weights: Weights, batch: Batch, train: Mapping[str, Any], *, device: str
) -> Memory:
    """The memory of training `tuned` (on the meta device, dtypes as in training) at its largest batch.

    Args:
        tuned: the PEFT model; left as it is.
        weights: what its base takes as it will be loaded.
        batch: the largest forward pass.
        train: the recipe's `train` section.
        device: "cpu" or "cuda".

    Raises:
        WalkError: the model's code does not run without weights.
    """
    checkpointing = bool(train.get("activation_checkpointing"))
    found = walk(tuned, batch, checkpointing=checkpointing, autocast=autocast(train), device=device)
    adapter = own_bytes(tuned) - _base_bytes(tuned)
    state = optimizer_bytes(tuned, train)
    kept = weights.stored + weights.constants + adapter + state
    allocator = _allocator(tuned, found) if device != "cuda" else 0
    return Memory(
        weights=weights.stored,
        quantization_constants=weights.constants,
        adapter=adapter,
        optimizer_state=state,
        gradients=trained_bytes(tuned),
        activations=found.saved,
        logits_and_loss=found.head - found.saved,
        working=max(found.forward, found.backward) - found.saved + weights.unpacked,
        allocator=allocator,
        # bitsandbytes unpacks one weight at a time, forward and backward (MatMul4Bit in its autograd).
        peak=kept
        + allocator
        + max(found.head, found.forward + weights.unpacked, found.backward + weights.unpacked),
    )


def generation_cache(config: PretrainedConfig, *, batch_size: int, length: int, element_size: int) -> int:
    """The bytes of keys and values of all layers while text of `length` tokens is written.

    Two tensors of (batch, key-value heads, length, head size) a layer; source: transformers' DynamicCache.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", 0)
    if not heads:  # a state-space model, whose state does not grow with the text
        return 0
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * batch_size * heads * size * length * element_size)


def _base_bytes(tuned: PeftModel) -> int:
    """The bytes of a PEFT model's base in the dtypes of its skeleton, before quantization."""
    return sum(part.numel() * part.element_size() for name, part in tuned.named_parameters() if is_base(name))


def _allocator(tuned: PeftModel, found: Walk) -> int:
    """The bytes that a CPU's heap and torch's libraries take beside tensors."""
    modules = len(tuned.base_model.targeted_module_names)
    share = min(HOLES + HOLES_A_MODULE * modules, MOST_HOLES)
    return LIBRARIES + round(share * (found.head - found.saved))


def autocast(train: Mapping[str, Any]) -> torch.dtype | None:
    """The dtype of mixed precision; TRL takes bfloat16 unless the section says otherwise."""
    import torch

    if train.get("fp16"):
        return torch.float16
    return torch.bfloat16 if train.get("bf16") in (None, True) else None
