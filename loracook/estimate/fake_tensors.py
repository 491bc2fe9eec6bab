"""A model on torch's fake tensors: shapes, dtypes and dispatch of the real ones, without data or memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loracook.estimate.live_bytes import Alive

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from torch.nn import Module

    from loracook.estimate.batches import Batch


@contextmanager
def pretending(tuned: PeftModel, batch: Batch, *, checkpointing: bool) -> Iterator[tuple[Any, Alive]]:
    """The base model on fake tensors, ready to train, and the count of all that its operators make."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _make_fake(tuned, mode)
    model = tuned.train().get_base_model()
    if checkpointing:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    alive = Alive(tuned)
    with mode, torch.device("cpu"), _masks(model, batch), alive.counting():
        yield model, alive


def inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """What the trainer's collator hands to the model; a mask where short rows are filled up."""
    import torch

    rows, length = (1 if batch.flat else len(batch.rows)), batch.length
    given: dict[str, Any] = {
        "input_ids": torch.zeros(rows, length, dtype=torch.long),
        "position_ids": torch.zeros(rows, length, dtype=torch.long),
        "use_cache": False,
    }
    if batch.masked:
        given["attention_mask"] = torch.ones(rows, length, dtype=torch.long)
    known = inspect.signature(model.base_model.forward).parameters
    return {name: value for name, value in given.items() if name in known}


@contextmanager
def _masks(model: Any, batch: Batch) -> Iterator[None]:
    """Have masks made only where rows are filled up; transformers cannot tell from fake tensors.

    It makes none for an attention that it knows no mask of (masking_utils._preprocess_mask_arguments).
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    asked = model.config._attn_implementation
    if asked == "sdpa" and (batch.masked or model._supports_attention_backend):
        name = "loracook_masked" if batch.masked else "loracook_unmasked"
        AttentionInterface.register(name, sdpa_attention_forward)
        AttentionMaskInterface.register("loracook_masked", _whole_mask)
        model.config._attn_implementation_internal = name
    try:
        yield
    finally:
        model.config._attn_implementation_internal = asked


def _whole_mask(**asked: Any) -> Tensor:
    """The mask as for real rows of different lengths, which is never left out."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(**asked | {"allow_is_causal_skip": False})


def _make_fake(tuned: Module, mode: Any) -> None:
    """Put fake tensors of the CPU in place of all parameters and buffers; tied ones stay tied."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.nn import Parameter

    made: dict[int, Any] = {}

    def fake(part: Tensor) -> Any:
        if id(part) not in made:
            new = FakeTensor(mode, part.detach().to("meta"), torch.device("cpu"))
            made[id(part)] = Parameter(new, part.requires_grad) if isinstance(part, Parameter) else new
        return made[id(part)]

    for module in tuned.modules():
        for owned in (module._parameters, module._buffers):
            owned.update({name: fake(part) for name, part in owned.items() if part is not None})
