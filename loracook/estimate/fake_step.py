"""A training step on fake tensors: the bytes that are live while a model trains, without weights.

The model's own code runs on torch's fake tensors, which have shapes, dtypes and the dispatch of a device
(autocast and the choice of attention kernel included) but no data; every storage that an operator makes is
counted from its making to its end. A few layers are run and the rest extrapolated, since all are alike.

Sources: torch 2.13, torch._subclasses.fake_tensor and torch.distributed._tools.mem_tracker (the same way of
counting); trl 1.16, trl/kernels/chunked_logprob.py, for the output head and the loss.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from loracook.estimate.batches import Batch
from loracook.estimate.fake_tensors import model_inputs, on_fake_tensors
from loracook.estimate.lm_head import head_forward, head_forward_backward, triton_bytes
from loracook.model.input_casts import casts_are_undone

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from torch.nn import Module, ModuleList


KINDS = 2
"""How many kinds of layers some models alternate; so many layers are run, and twice as many."""


class FakeStepError(Exception):
    """A model's own code does not run on fake tensors; the text says where it failed."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes live beside weights and optimizer state: after the forward pass, and at each phase's peak."""

    saved: int
    forward: int
    loss: int
    backward: int


@lru_cache(maxsize=64)
def step_memory(
    tuned: PeftModel, batch: Batch, *, checkpointing: int, autocast: torch.dtype | None, device: str = "cpu"
) -> StepMemory:
    """What one step of `tuned` (on the meta device, dtypes as in training) holds for a batch.

    Args:
        tuned: the PEFT model; left unchanged.
        batch: the forward pass to run.
        checkpointing: activations of every n-th layer are recomputed; 0 for none.
        autocast: the dtype of mixed precision, None where there is none.
        device: "cpu", or "cuda" for norms and the output head as they are computed there.

    Raises:
        FakeStepError: the model's code needs real weights.
    """

    def measure(model_part: PeftModel) -> tuple[int, ...]:
        with on_fake_tensors(model_part, batch, checkpointing=checkpointing, device=device) as (model, live):
            with _mixed_precision(model, autocast):
                hidden = _forward(model, batch)
                saved, forward = live.current, live.take_peak()
                if device != "cuda":
                    head_forward_backward(model, hidden.detach())
            loss = live.take_peak() if device != "cuda" else saved + triton_bytes(hidden, autocast)
            hidden.sum().backward()
        return astuple(StepMemory(saved, forward, loss, live.take_peak()))

    return StepMemory(*_extrapolated(tuned, measure, period=math.lcm(KINDS, checkpointing or 1)))


def evaluation_bytes(tuned: PeftModel, batch: Batch, *, autocast: torch.dtype | None, device: str) -> int:
    """The bytes at the peak of a forward pass and its loss without gradients; arguments as `step_memory`."""

    def measure(model_part: PeftModel) -> tuple[int]:
        import torch

        with (
            on_fake_tensors(model_part, batch, checkpointing=False, device=device) as (model, live),
            torch.no_grad(),
            _mixed_precision(model, autocast),
        ):
            hidden = _forward(model, batch)
            if device != "cuda":
                head_forward(model, hidden)
                return (live.take_peak(),)
            return (max(live.take_peak(), live.current + triton_bytes(hidden, autocast)),)

    return _extrapolated(tuned, measure)[0]


def saved_without_checkpointing(tuned: PeftModel, batch: Batch, *, autocast: torch.dtype | None) -> int:
    """The bytes of activations held for the backward pass when none are recomputed."""

    def measure(model_part: PeftModel) -> tuple[int]:
        with (
            on_fake_tensors(model_part, batch, checkpointing=False) as (model, live),
            _mixed_precision(model, autocast),
        ):
            hidden = _forward(model, batch)
            saved = live.current
        del hidden  # the activations are live until here
        return (saved,)

    return _extrapolated(tuned, measure)[0]


def _extrapolated(
    tuned: PeftModel, measure: Callable[[PeftModel], tuple[int, ...]], *, period: int = KINDS
) -> tuple[int, ...]:
    """What is measured on a few layers, extrapolated to all of them; they are alike after each `period`."""
    try:
        layers = repeated_layers(tuned)
        few, more = (min(count, len(layers)) for count in (period, 2 * period))
        first = measure(_first_layers(tuned, layers, few))
        second = measure(_first_layers(tuned, layers, more)) if more > few else first
    except Exception as error:
        logging.getLogger("loracook").warning("the step on fake tensors failed", exc_info=True)
        raise FakeStepError(" ".join(f"{type(error).__name__}: {error}".split())[:120]) from error
    rest, apart = len(layers) - few, max(more - few, 1)
    return tuple(a + (b - a) * rest // apart for a, b in zip(first, second, strict=True))


def repeated_layers(model: Module) -> ModuleList:
    """The model's list of alike layers, the longest there is.

    Raises:
        ValueError: there is none.
    """
    from torch.nn import ModuleList

    return max((module for module in model.modules() if isinstance(module, ModuleList)), key=len)


def _first_layers(tuned: PeftModel, layers: Sequence[Module], count: int) -> PeftModel:
    """A copy of the model with the first `count` layers only."""
    from torch.nn import ModuleList

    owner, name = next(
        (module, name)
        for module in tuned.modules()
        for name, child in module.named_children()
        if child is layers
    )
    setattr(owner, name, ModuleList(list(layers)[:count]))
    try:
        return deepcopy(tuned)
    finally:
        setattr(owner, name, layers)


def _forward(model: Any, batch: Batch) -> Tensor:
    """The last hidden states, which hold all that the backward pass needs."""
    hidden: Tensor = model.base_model(**model_inputs(model, batch)).last_hidden_state
    return hidden


@contextmanager
def _mixed_precision(model: PeftModel, autocast: torch.dtype | None) -> Iterator[None]:
    """Compute as training does (loracook/training/one_order.py)."""
    import torch
    from peft.helpers import disable_input_dtype_casting

    mixed = torch.autocast("cpu", autocast, enabled=autocast is not None)
    with mixed, disable_input_dtype_casting(model, active=casts_are_undone(model, autocast)):
        yield
