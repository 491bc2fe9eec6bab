"""The order that training takes rows in, and what became of each row when they were prepared.

Source: transformers 5.23's samplers; the order of rows is that of accelerate 1.15's SeedableRandomSampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.int64]

STRATEGY = "train_sampling_strategy"
PREDICTABLE = ("random", "sequential")
"""The sampling strategies whose order is known beforehand."""
DROPPED, TAKEN, LEFT = range(3)


@dataclass(frozen=True)
class Taken:
    """What became of each usable row, a byte for each in their order.

    One that is taken is among the prepared rows; a dropped one has no token in the loss, or its template
    refused it; one that is left was not looked at.
    """

    marks: bytes

    @classmethod
    def all_of(cls, rows: int) -> Taken:
        """All of so many rows."""
        return cls(bytes([TAKEN]) * rows)

    @property
    def per_epoch(self) -> int:
        """The rows of an epoch: those that are taken or left."""
        return len(self.marks) - self.marks.count(DROPPED)

    @property
    def is_part(self) -> bool:
        """Whether any rows are left."""
        return LEFT in self.marks

    def prepared(self, order: Sequence[int] | Numbers) -> Numbers:
        """An order of all usable rows as the numbers of the prepared ones, which pass over the others."""
        import numpy

        taken, numbers = self._taken(), numpy.asarray(order, numpy.int64)
        order = numbers[taken[numbers]]
        return (taken.cumsum() - 1)[order]

    @property
    def places(self) -> Numbers:
        """The numbers of the taken rows among all usable ones."""
        import numpy

        return numpy.flatnonzero(self._taken())

    def first(self, order: Numbers, count: int) -> Taken:
        """The same of the first rows alone that are taken in an order, so many, the rest being left."""
        import numpy

        reached = numpy.flatnonzero(self._taken()[order])[:count]
        looked_at = order[: reached[-1] + 1] if len(reached) == count else order
        marks = numpy.full(len(self.marks), LEFT, numpy.uint8)
        marks[looked_at] = numpy.frombuffer(self.marks, numpy.uint8)[looked_at]
        return Taken(marks.tobytes())

    def _taken(self) -> NDArray[numpy.bool_]:
        import numpy

        taken: NDArray[numpy.bool_] = numpy.frombuffer(self.marks, numpy.uint8) == TAKEN
        return taken


def train_arguments(recipe: Recipe) -> dict[str, Any]:
    """The `train` section as the trainer gets it, which shuffles by itself unless it is told not to."""
    order = {} if recipe["dataset"]["shuffle"] else {STRATEGY: "sequential"}
    return {**order, **recipe["train"]}


def is_predictable(train: Mapping[str, Any]) -> bool:
    """Whether the order of rows is known beforehand."""
    return train.get(STRATEGY, "random") in PREDICTABLE


def order_seed(train: Mapping[str, Any]) -> int | None:
    """What the order of rows is drawn by, None where it is not drawn."""
    if train.get(STRATEGY, "random") == "sequential":
        return None
    seed = train.get("data_seed")
    return int(train["seed"] if seed is None else seed)


def training_order(train: Mapping[str, Any], rows: int, epoch: int) -> Numbers:
    """The numbers of so many rows in the order that training takes them in."""
    import numpy

    seed = order_seed(train)
    if seed is None:
        return numpy.arange(rows)
    import torch

    order: Numbers = torch.randperm(rows, generator=torch.Generator().manual_seed(seed + epoch)).numpy()
    return order
