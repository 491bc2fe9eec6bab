"""The weights of a GGUF file, loaded back by transformers and compared with those of the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loracook.model.gguf_export import ConversionError, rope_settings
from loracook.model.own_code import NO_CODE

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ROUNDING = {"f16": 2**-11, "bf16": 2**-9, "q8_0": 0.023}
"""The largest error of a weight matrix, relative to its L2 norm. 16-bit floats have 11 and 8 bits; in Q8_0 32
weights share a scale, 1/127 of the largest one, so that each is off by 1/254 of that one: sqrt(32)/254 where
it stands alone."""


def load_exported(file: Path, config: PretrainedConfig) -> PreTrainedModel:
    """The model of a GGUF file in plain weights, on the CPU; what GGUF has no place for is that of `config`.

    Raises:
        ConversionError: weights are missing.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    exported, report = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        dtype=config.dtype,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
        **NO_CODE,
    )
    if missing := sorted(report["missing_keys"]):
        raise ConversionError(f"{missing[0]} is missing in the GGUF file")
    loaded: PreTrainedModel = exported.eval()
    return loaded


def check_rope(file: Path, merged: PreTrainedModel) -> None:
    """Raise ConversionError where a GGUF file does not slow each RoPE frequency as Llama 3's scaling does."""
    import torch
    from gguf import GGUFReader

    (rope, *_), held = (
        rope_settings(merged.config),
        {tensor.name: tensor for tensor in GGUFReader(file).tensors},
    )
    if rope.get("rope_type", "default") == "default":
        return
    scaled = merged.get_decoder().rotary_emb.inv_freq.float().cpu()
    unscaled = rope["rope_theta"] ** -(torch.arange(len(scaled)) / len(scaled))
    written = held["rope_freqs.weight"].data if "rope_freqs.weight" in held else [0.0]
    if len(written) != len(scaled) or not torch.allclose(unscaled / scaled, torch.tensor(written), rtol=1e-3):
        raise ConversionError("the GGUF file has other RoPE frequencies")


def check_weights(merged: PreTrainedModel, exported: PreTrainedModel, outtype: str) -> float:
    """The largest error of an exported weight, relative to its L2 norm.

    Raises:
        ConversionError: one is no number, or further off than `outtype` rounds.
    """
    import torch

    actual, largest = exported.state_dict(), 0.0
    allowed = ROUNDING[outtype] + torch.finfo(merged.dtype).eps / 2
    for name, weight in merged.state_dict().items():
        norm = float(weight.float().norm())
        error = float((weight.float() - actual[name].float()).norm()) / (norm or 1)
        if not error <= allowed:
            off = f"{name} of the GGUF file is off by {error:.1%} of its norm"
            raise ConversionError(f"{off}, and {outtype} rounds by {allowed:.1%}; please report it")
        largest = max(largest, error)
    return largest
