"""A model on torch's fake tensors: shapes, dtypes and dispatch of the real ones, without data or memory."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from loracook.estimate.batches import Batch
from loracook.machine import upstream
from loracook.model.row_attention import in_rows, separable_attention

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from torch.nn import Module

    from loracook.model.row_attention import Attention


FLASH = "flash_attention"
"""What the names of FlashAttention's versions begin with."""


class LiveBytes:
    """Counts the bytes of all storages that operators make, from their making to their end.

    The model's own parameters and buffers are not counted.
    """

    def __init__(self, model: Module) -> None:
        self.current = self.peak = 0
        self.owned = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
        self.sizes = {upstream.storage_id(storage): 0 for storage in self.owned}

    def take_peak(self) -> int:
        """The most bytes that were live at once since the last call."""
        peak, self.peak = self.peak, self.current
        return peak

    def counting(self) -> Any:
        """A context in which the results of every operator are counted."""
        live = self

        class Counting(upstream.dispatch_mode()):  # type: ignore[misc]  # torch demands a subclass
            def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: PLR0917  torch's signature
                result = op(*args, **(kwargs or {}))
                for leaf in upstream.tree_leaves(result):
                    if hasattr(leaf, "untyped_storage"):
                        live._add(leaf.untyped_storage())
                return result

        return Counting()

    def _add(self, storage: Any) -> None:
        key = upstream.storage_id(storage)
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.current += self.sizes[key]
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.current -= self.sizes.pop(key)


@contextmanager
def on_fake_tensors(
    tuned: PeftModel, batch: Batch, *, checkpointing: int, device: str = "cpu"
) -> Iterator[tuple[Any, LiveBytes]]:
    """The base model on fake tensors, ready to train on a device, and the count of all its operators make."""
    import torch

    mode = upstream.fake_tensor_mode()
    if device == "cuda":
        _widen_norms(tuned)
    _replace_tensors(tuned, mode)
    model = tuned.train().get_base_model()
    if checkpointing:
        model.activation_checkpointing_enable(every_n_layers=int(checkpointing))
        model.enable_input_require_grads()
    live = LiveBytes(tuned)
    with mode, torch.device("cpu"), _attention(model, batch, device), live.counting():
        yield model, live


def model_inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """What the trainer's collator hands to the model; with a mask where short rows are padded."""
    import torch

    shape = (1 if batch.flat else len(batch.rows)), batch.length
    inputs: dict[str, Any] = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "position_ids": torch.zeros(shape, dtype=torch.long),
        "use_cache": False,
    }
    if batch.masked:
        inputs["attention_mask"] = torch.ones(shape, dtype=torch.long)
    accepted = inspect.signature(model.base_model.forward).parameters
    return {name: value for name, value in inputs.items() if name in accepted}


def _widen_norms(tuned: PeftModel) -> None:
    """Compute norms in float32 under autocast, as CUDA does and a CPU does not (ATen/autocast_mode.h)."""
    import torch

    def widened(_: Module, inputs: Any) -> Any:
        return (inputs[0].float(), *inputs[1:]) if torch.is_autocast_enabled("cpu") else inputs

    for module in tuned.modules():
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.RMSNorm)):
            module.float().register_forward_pre_hook(widened)


@contextmanager
def _attention(model: Any, batch: Batch, device: str) -> Iterator[None]:
    """Have attention masks made exactly where rows are padded; transformers cannot tell from fake tensors.

    It makes none for an attention without a registered mask (masking_utils._preprocess_mask_arguments). On a
    CPU, rows without padding attend one after the other (loracook/model/row_attention.py). FlashAttention,
    which reads numbers, holds what SDPA does without a mask.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    original = upstream.attention_implementation(model)
    flash = original.startswith(FLASH)
    if flash or (original == "sdpa" and (batch.masked or upstream.takes_any_attention(model))):
        name = "loracook_masked" if batch.masked and not flash else "loracook_unmasked"
        AttentionInterface.register(name, sdpa_attention_forward)
        AttentionMaskInterface.register("loracook_masked", _full_mask)
        upstream.set_attention_implementation(model, name)
    elif batch.flat and device == "cpu" and (eager := separable_attention(model, original)) is not None:
        AttentionInterface.register("loracook_rows", partial(_in_equal_rows, eager, len(batch.rows)))
        upstream.set_attention_implementation(model, "loracook_rows")
    try:
        yield
    finally:
        upstream.set_attention_implementation(model, original)


def _in_equal_rows(
    attention: Attention, rows: int, module: Any, *attended: Any, **named: Any
) -> tuple[Tensor, None]:
    """An attention of so many rows, as if all were equally long."""
    states = attended[:3]
    named.pop("attention_mask", None)
    shorter, longer = divmod(states[0].shape[2], rows)
    lengths = [shorter + (number < longer) for number in range(rows)]
    return in_rows(partial(attention, module, **named), states, lengths, masks=[None] * rows), None


def _full_mask(**arguments: Any) -> Tensor:
    """The mask for real rows of different lengths, which is never left out."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(**arguments | {"allow_is_causal_skip": False})


def _replace_tensors(tuned: Module, mode: Any) -> None:
    """Put fake CPU tensors in place of all parameters and buffers; tied ones stay tied."""
    from torch.nn import Parameter

    replaced: dict[int, Any] = {}

    def fake(tensor: Tensor) -> Any:
        if id(tensor) not in replaced:
            new = upstream.fake_cpu_tensor(mode, tensor)
            is_parameter = isinstance(tensor, Parameter)
            replaced[id(tensor)] = Parameter(new, tensor.requires_grad) if is_parameter else new
        return replaced[id(tensor)]

    for module in tuned.modules():
        for tensors in upstream.own_tensors(module):
            tensors.update({name: fake(tensor) for name, tensor in tensors.items() if tensor is not None})
