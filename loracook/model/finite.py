"""Whether every weight of a model is a finite number, whatever texts it is tried on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first weight that holds NaN or infinity, None where all are finite.

    Weights that bitsandbytes quantized are judged by their constants, which carry either on.
    """
    return next((name for name, weight in weights if not all(map(_is_finite, _numbers(weight)))), None)


def _numbers(weight: Tensor) -> Iterator[Tensor]:
    """The tensors of floating-point numbers that a weight consists of."""
    state = getattr(weight, "quant_state", None)
    nested = getattr(state, "state2", None)
    constants = [getattr(each, name, None) for each in (state, nested) for name in ("absmax", "offset")]
    own = weight.detach() if state is None else None  # packed, whatever dtype it is stored as
    tensors = (own, *constants, getattr(weight, "SCB", None))
    return (
        each
        for each in tensors
        if each is not None and each.is_floating_point() and each.numel() and not each.is_meta
    )


def _is_finite(tensor: Tensor) -> bool:
    """Whether both ends of a tensor's range are finite; NaN comes through as either."""
    import torch

    if tensor.element_size() == 1:  # float8, of which torch has no least and greatest
        tensor = tensor.float()
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())
