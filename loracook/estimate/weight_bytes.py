"""How many bytes weights and optimizer state take, by dtype and quantization."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch.nn import Parameter
    from transformers import PreTrainedModel

BLOCK = 64
"""Weights that share one 4-bit scale: bitsandbytes 0.50, Params4bit.blocksize."""
CODE = 16 * 4
"""Bytes of the table of 4-bit values that each module keeps (bitsandbytes QuantState.code, float32)."""
NESTED_BLOCK, NESTED_CODE = 256, 256 * 4 + 4
"""Scales that share one scale of their own when quantized twice, with that table and its offset."""
MIN_8BIT = 4096
"""Tensors with fewer elements keep 32-bit state in bitsandbytes' 8-bit optimizers (min_8bit_size)."""
OPTIMIZER_BLOCK = 256
"""Elements that share one float32 scale in 8-bit optimizer state (bitsandbytes, optimizer.py)."""
MERGED_AWAY = ("lora_", ".original_module.", ".trainable_tokens_")
"""What a merge leaves nothing of, by parts of the parameters' names (peft 0.21)."""
STATES = {
    "sgd": 0, "schedule_free_sgd": 1, "adafactor": 0,
    "adagrad": 1, "rmsprop": 1, "rmsprop_bnb": 1, "lion": 1,
    "ademamix": 3, "grokadamw": 3,
}  # fmt: skip
"""Tensors of a parameter's size that an optimizer keeps for it, by the start of its name; two for all others
(Adam's moments, Kingma & Ba 2015, algorithm 1)."""


@dataclass(frozen=True)
class Weights:
    """Bytes of a base model: its weights, what quantization keeps beside, and the largest weight unpacked."""

    stored: int
    constants: int
    unpacked: int


def weigh(skeleton: PreTrainedModel, quantization: Mapping[str, Any]) -> Weights:
    """The bytes of a skeleton whose parameters have the dtypes they will be loaded in."""
    bits = 4 if quantization.get("load_in_4bit") else 8 if quantization.get("load_in_8bit") else None
    chosen = _quantized(skeleton, quantization) if bits else []
    plain = {id(part): part for part in skeleton.parameters()}
    for part in chosen:
        plain.pop(id(part), None)
    constants = sum(_constants(part, bits or 8, quantization) for part in chosen)
    stored = sum(map(_bytes, plain.values())) + sum(part.numel() * (bits or 8) // 8 for part in chosen)
    return Weights(stored, constants, max(map(_bytes, chosen), default=0))


def set_dtypes(tuned: PeftModel, *, quantized: bool) -> None:
    """Give an adapter the dtypes it trains in: bfloat16 on a quantized base (trl 1.16, SFTTrainer)."""
    import torch

    for name, part in tuned.named_parameters():
        if quantized and part.requires_grad and "lora_magnitude_vector" not in name:
            part.data = part.data.to(torch.bfloat16)


def cast(skeleton: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give every weight of a skeleton the dtype it is loaded in; buffers keep theirs."""
    for part in skeleton.parameters():
        part.data = part.data.to(dtype)


def trained_bytes(tuned: PeftModel) -> int:
    """The bytes of the parameters that train, which their gradients take once more."""
    return sum(map(_bytes, _trained(tuned)))


def own_bytes(tuned: PeftModel) -> int:
    """The bytes of all parameters of a PEFT model."""
    return sum(map(_bytes, tuned.parameters()))


def optimizer_bytes(tuned: PeftModel, train: Mapping[str, Any]) -> int:
    """The bytes of the state that the optimizer of a `train` section keeps for what trains."""
    optim = train.get("optim", "adamw_torch_fused").removeprefix("paged_")
    return sum(_state_bytes(part, optim) for part in _trained(tuned))


def merged_parameters(tuned: PeftModel) -> int:
    """The parameters of a PEFT model once merged, each once: a trained copy takes the place of its module."""
    named = tuned.named_parameters(remove_duplicate=False)
    left = {id(part): part for name, part in named if not any(part in name for part in MERGED_AWAY)}
    return sum(part.numel() for part in left.values())


def _state_bytes(part: Parameter, optim: str) -> int:
    elements = int(part.numel())
    if optim == "adafactor":  # row and column means (Shazeer & Stern 2018, section 3)
        return (
            4 * (elements // int(part.shape[-1]) + elements // int(part.shape[0]))
            if part.dim() > 1
            else 4 * elements
        )
    states = next((count for start, count in STATES.items() if optim.startswith(start)), 2)
    if "4bit" in optim:
        return states * (elements // 2 + elements // 128 * 4)  # torchao: blocks of 128
    if "8bit" in optim and elements >= MIN_8BIT:
        return states * (elements + elements // OPTIMIZER_BLOCK * 4)
    by_bitsandbytes = "bit" in optim or "bnb" in optim or optim.startswith("ademamix")
    return states * elements * (4 if by_bitsandbytes else int(part.element_size()))


def _quantized(skeleton: PreTrainedModel, quantization: Mapping[str, Any]) -> list[Parameter]:
    """The weights that bitsandbytes packs: those of all linear modules but the skipped ones."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert

    skipped = quantization.get("llm_int8_skip_modules") or get_keys_to_not_convert(skeleton)
    return [
        module.weight
        for name, module in skeleton.named_modules()
        if isinstance(module, (Linear, Conv1D)) and not _is_skipped(name, skipped)
    ]


def _is_skipped(name: str, skipped: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") or name.endswith(f".{part}") for part in skipped)


def _constants(part: Parameter, bits: int, quantization: Mapping[str, Any]) -> int:
    """What a packed weight keeps: a scale a row in 8 bit, a block in 4 (QLoRA, Dettmers 2023, section 3)."""
    if bits == 8:
        return int(part.shape[0]) * 4
    blocks = -(-int(part.numel()) // BLOCK)
    if not quantization.get("bnb_4bit_use_double_quant"):
        return CODE + blocks * 4
    return CODE + blocks + -(-blocks // NESTED_BLOCK) * 4 + NESTED_CODE


def _trained(tuned: PeftModel) -> list[Parameter]:
    return [part for part in tuned.parameters() if part.requires_grad]


def _bytes(part: Any) -> int:
    return int(part.numel() * part.element_size())
