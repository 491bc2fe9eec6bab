"""A forward and backward pass without memory: what would be alive while a model trains.

The model's own code runs on torch's fake tensors, which have shapes, dtypes and the dispatch of a device
(autocast and the choice of attention kernel included) but no data; every storage that an operator makes is
counted from its making to its end. A few layers are walked and the rest follows, since all layers are alike.

Sources: torch 2.13, torch._subclasses.fake_tensor and torch.distributed._tools.mem_tracker (the same way of
counting); trl 1.16, trl/kernels/chunked_logprob.py, for the output head and the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from loracook.estimate.fake_tensors import inputs, pretending
from loracook.estimate.lm_head import losses, score, triton_bytes

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from torch.nn import Module, ModuleList

    from loracook.estimate.batches import Batch

WALKED = (2, 4)
"""How many layers are walked; two apart, since some models alternate two kinds."""


class WalkError(Exception):
    """A model's own code does not run without weights; the text says what it stumbled over."""


@dataclass(frozen=True)
class Walk:
    """Bytes alive beside weights and optimizer state: after the forward pass, and at each phase's peak."""

    saved: int
    forward: int
    head: int
    backward: int

    @property
    def peak(self) -> int:
        """The most that is alive at once."""
        return max(self.forward, self.head, self.backward)


@lru_cache(maxsize=64)
def walk(
    tuned: PeftModel, batch: Batch, *, checkpointing: bool, autocast: torch.dtype | None, device: str = "cpu"
) -> Walk:
    """What one step of `tuned` (on the meta device, dtypes as in training) keeps alive for the largest batch.

    Args:
        tuned: the PEFT model; left as it is.
        batch: the forward pass to walk.
        checkpointing: whether activations are recomputed layer by layer.
        autocast: the dtype of mixed precision, None where there is none.
        device: "cpu", or "cuda" for the output head as Triton computes it there.

    Raises:
        WalkError: the model's code needs real weights.
    """
    return Walk(
        *_of_all_layers(tuned, lambda cut: astuple(_walk(cut, batch, checkpointing, autocast, device)))
    )


def scoring(tuned: PeftModel, batch: Batch, *, autocast: torch.dtype | None, device: str) -> int:
    """The bytes at the peak of a forward pass and its loss without gradients; takes what `walk` takes."""

    def measure(cut: PeftModel) -> tuple[int]:
        import torch

        with pretending(cut, batch, checkpointing=False) as (model, alive), torch.no_grad(), _mixed(autocast):
            hidden = _forward(model, batch)
            if device != "cuda":
                losses(model, hidden)
                return (alive.take_peak(),)
            return (max(alive.take_peak(), alive.bytes + triton_bytes(hidden, autocast)),)

    return _of_all_layers(tuned, measure)[0]


def saved_without_checkpointing(tuned: PeftModel, batch: Batch, *, autocast: torch.dtype | None) -> int:
    """The bytes that are kept for the backward pass when nothing is recomputed; takes what `walk` takes."""

    def measure(cut: PeftModel) -> tuple[int]:
        with pretending(cut, batch, checkpointing=False) as (model, alive), _mixed(autocast):
            hidden = _forward(model, batch)
            kept = alive.bytes
        del hidden  # held what is kept until here
        return (kept,)

    return _of_all_layers(tuned, measure)[0]


def _of_all_layers(tuned: PeftModel, measure: Callable[[PeftModel], tuple[int, ...]]) -> tuple[int, ...]:
    """What is measured of a few layers, carried on to all of them."""
    try:
        layers = repeated_layers(tuned)
        few, more = (min(count, len(layers)) for count in WALKED)
        first, second = (measure(_cut(tuned, layers, count)) for count in (few, more))
    except Exception as error:  # made for real tensors, a model's code may stumble in any way
        raise WalkError(" ".join(f"{type(error).__name__}: {error}".split())[:120]) from error
    rest, apart = len(layers) - few, max(more - few, 1)
    return tuple(a + (b - a) * rest // apart for a, b in zip(first, second, strict=True))


def repeated_layers(model: Module) -> ModuleList:
    """The model's list of alike layers, the longest there is.

    Raises:
        ValueError: there is none.
    """
    from torch.nn import ModuleList

    return max((part for part in model.modules() if isinstance(part, ModuleList)), key=len)


def _cut(tuned: PeftModel, layers: Sequence[Module], count: int) -> PeftModel:
    """A copy of the model on fake tensors with the first layers only."""
    from torch.nn import ModuleList

    owner, name = next(
        (module, name)
        for module in tuned.modules()
        for name, part in module.named_children()
        if part is layers
    )
    setattr(owner, name, ModuleList(list(layers)[:count]))
    try:
        return deepcopy(tuned)
    finally:
        setattr(owner, name, layers)


def _walk(
    tuned: PeftModel, batch: Batch, checkpointing: bool, autocast: torch.dtype | None, device: str
) -> Walk:
    with pretending(tuned, batch, checkpointing=checkpointing) as (model, alive):
        with _mixed(autocast):
            hidden = _forward(model, batch)
            saved, forward = alive.bytes, alive.take_peak()
            if device != "cuda":
                score(model, hidden.detach())
        head = alive.take_peak() if device != "cuda" else saved + triton_bytes(hidden, autocast)
        hidden.sum().backward()
    return Walk(saved, forward, head, alive.take_peak())


def _forward(model: Any, batch: Batch) -> Tensor:
    """The last hidden states, which hold all that the backward pass needs."""
    hidden: Tensor = model.base_model(**inputs(model, batch)).last_hidden_state
    return hidden


def _mixed(autocast: torch.dtype | None) -> AbstractContextManager[Any]:
    import torch

    return torch.autocast("cpu", autocast) if autocast else nullcontext()
