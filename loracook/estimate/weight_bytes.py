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
GROUP = 128
"""Inputs that share a scale where GPTQ and AWQ do not say so (transformers, GPTQConfig)."""
MIN_8BIT = 4096
"""Tensors with fewer elements keep 32-bit state in bitsandbytes' 8-bit optimizers (min_8bit_size)."""
OPTIMIZER_BLOCK = 256
"""Elements that share one float32 scale in 8-bit optimizer state (bitsandbytes, optimizer.py)."""
MERGED_AWAY = ("lora_", ".original_module.", ".trainable_tokens_")
"""What is gone after a merge, by parts of the parameters' names (peft 0.21)."""
STATES = {
    "sgd": 0, "schedule_free_sgd": 1, "adafactor": 0,
    "adagrad": 1, "rmsprop": 1, "rmsprop_bnb": 1, "lion": 1,
    "ademamix": 3, "grokadamw": 3,
}  # fmt: skip
"""Tensors of a parameter's size that an optimizer keeps for it, by the start of its name; two for all others
(Adam's moments, Kingma & Ba 2015, algorithm 1)."""


@dataclass(frozen=True)
class Weights:
    """Bytes of a base model: its weights, quantization constants, and the largest weight once unpacked."""

    stored: int
    constants: int
    unpacked: int


def weight_bytes(base: PreTrainedModel, quantization: Mapping[str, Any]) -> Weights:
    """The bytes of a base model on the meta device, whose parameters have the dtypes they are loaded in."""
    bits = _bits(quantization)
    quantized = _to_quantize(base, quantization) if bits else []
    rest = {id(tensor): tensor for tensor in base.parameters()}
    for tensor in quantized:
        rest.pop(id(tensor), None)
    constants = sum(_constants(tensor, bits, quantization) for tensor in quantized)
    packed = sum(tensor.numel() * bits // 8 for tensor in quantized)
    stored = sum(map(parameter_bytes, rest.values())) + packed
    return Weights(stored, constants, max(map(parameter_bytes, quantized), default=0))


def set_dtypes(tuned: PeftModel, *, quantized: bool) -> None:
    """Give an adapter the dtypes it trains in: bfloat16 on a quantized base (trl 1.16, SFTTrainer)."""
    import torch

    for name, tensor in tuned.named_parameters():
        if quantized and tensor.requires_grad and "lora_magnitude_vector" not in name:
            tensor.data = tensor.data.to(torch.bfloat16)


def cast(base: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give every weight of a model the dtype it is loaded in; buffers keep theirs."""
    for tensor in base.parameters():
        tensor.data = tensor.data.to(dtype)


def optimizer_bytes(tuned: PeftModel, train: Mapping[str, Any]) -> int:
    """The bytes of optimizer state for the trainable parameters, by the `optim` of a `train` section."""
    optim = train.get("optim", "adamw_torch_fused").removeprefix("paged_")
    return sum(_state_bytes(tensor, optim) for tensor in _trainable(tuned))


def merged_parameters(tuned: PeftModel) -> int:
    """The number of parameters once merged, tied ones counted once; a trained copy replaces its module."""
    named = tuned.named_parameters(remove_duplicate=False)
    left = {id(tensor): tensor for name, tensor in named if not any(mark in name for mark in MERGED_AWAY)}
    return sum(tensor.numel() for tensor in left.values())


def _state_bytes(tensor: Parameter, optim: str) -> int:
    elements = int(tensor.numel())
    if optim == "adafactor":  # row and column means (Shazeer & Stern 2018, section 3)
        return (
            4 * (elements // int(tensor.shape[-1]) + elements // int(tensor.shape[0]))
            if tensor.dim() > 1
            else 4 * elements
        )
    states = next((count for start, count in STATES.items() if optim.startswith(start)), 2)
    if "4bit" in optim:
        return states * (elements // 2 + elements // 128 * 4)  # torchao: blocks of 128
    if "8bit" in optim and elements >= MIN_8BIT:
        return states * (elements + elements // OPTIMIZER_BLOCK * 4)
    by_bitsandbytes = "bit" in optim or "bnb" in optim or optim.startswith("ademamix")
    return states * elements * (4 if by_bitsandbytes else int(tensor.element_size()))


def _bits(quantization: Mapping[str, Any]) -> int:
    """The bits of a quantized weight; 0 where none is quantized."""
    own = 4 if quantization.get("load_in_4bit") else 8 if quantization.get("load_in_8bit") else 0
    return own or int(quantization.get("bits", 0))


def _to_quantize(base: PreTrainedModel, quantization: Mapping[str, Any]) -> list[Parameter]:
    """The weights that are packed: those of all linear modules but the skipped ones."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert

    named = (quantization.get(key) for key in ("llm_int8_skip_modules", "modules_to_not_convert"))
    skipped = next(filter(None, named), None) or get_keys_to_not_convert(base)
    return [
        module.weight
        for name, module in base.named_modules()
        if isinstance(module, (Linear, Conv1D)) and not _is_skipped(name, skipped)
    ]


def _is_skipped(name: str, skipped: Iterable[str]) -> bool:
    return any(name == skip or name.startswith(f"{skip}.") or name.endswith(f".{skip}") for skip in skipped)


def _constants(tensor: Parameter, bits: int, quantization: Mapping[str, Any]) -> int:
    """A weight's constants: a scale per row in 8 bit, per block in 4 (QLoRA, Dettmers 2023, section 3)."""
    if "bits" in quantization:
        return _group_constants(tensor, bits, quantization)
    if bits == 8:
        return int(tensor.shape[0]) * 4
    blocks = -(-int(tensor.numel()) // BLOCK)
    if not quantization.get("bnb_4bit_use_double_quant"):
        return CODE + blocks * 4
    return CODE + blocks + -(-blocks // NESTED_BLOCK) * 4 + NESTED_CODE


def _group_constants(tensor: Parameter, bits: int, quantization: Mapping[str, Any]) -> int:
    """The constants of a weight that GPTQ or AWQ packed (gptqmodel, BaseQuantLinear and AWQuantLinear).

    For each group of inputs and each output a float16 scale and a zero of `bits`; GPTQ numbers each input's
    group.
    """
    outputs, inputs = map(int, tensor.shape)
    size = int(quantization.get("group_size", GROUP))
    groups = -(-inputs // size) if size > 0 else 1
    numbers = 4 * inputs if quantization.get("quant_method") == "gptq" else 0
    return groups * outputs * 2 + groups * outputs * bits // 8 + numbers


def _trainable(tuned: PeftModel) -> list[Parameter]:
    return [tensor for tensor in tuned.parameters() if tensor.requires_grad]


def parameter_bytes(tensor: Any) -> int:
    """The bytes of one tensor."""
    return int(tensor.numel() * tensor.element_size())
