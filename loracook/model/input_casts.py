"""PEFT's casts of inputs to the adapter's dtype, and where they change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


def casts_are_undone(tuned: PeftModel, autocast: torch.dtype | None) -> bool:
    """Whether autocast casts the input of every adapted layer straight back, so that the copy is for nothing.

    PEFT copies it to float32, the dtype of LoRA's weights, and autocast to its own for the product with
    them. Dropout and variants as DoRA compute with the copy.
    """
    from peft.tuners.lora import LoraLayer
    from torch.nn import Identity

    adapted = [module for module in tuned.modules() if isinstance(module, LoraLayer)]
    plain = (
        not layer.lora_variant and all(isinstance(each, Identity) for each in layer.lora_dropout.values())
        for layer in adapted
    )
    return autocast is not None and all(plain)
