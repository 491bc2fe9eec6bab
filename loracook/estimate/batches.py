"""The batches of a training run: their tokens, and the largest of them.

Source: transformers 5.23, Trainer._run_epoch; the order of rows is that of accelerate 1.15's
SeedableRandomSampler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.recipe.derived import Steps, steps

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from loracook.recipe.recipe import Recipe

    Lengths = NDArray[numpy.int64]

FORESEEN = ("random", "sequential")
"""The sampling strategies whose order can be told beforehand."""
MANY = 20
"""Epochs beyond which the longest batch is taken for one of the longest rows, to which it comes near."""


@dataclass(frozen=True)
class Batch:
    """A forward pass: the numbers of its rows, its length in tokens, and whether it needs an attention mask.

    A flat batch is all rows joined to one, whose length is their sum.
    """

    rows: tuple[int, ...]
    length: int
    masked: bool
    flat: bool = False


def as_trained(recipe: Recipe) -> dict[str, Any]:
    """The `train` section as the trainer gets it, which shuffles by itself unless it is told not to."""
    order = {} if recipe["dataset"]["shuffle"] else {"train_sampling_strategy": "sequential"}
    return {**order, **recipe["train"]}


def tokens(train: Mapping[str, Any], lengths: Lengths) -> int:
    """Tokens of a whole run, padding left out, from the lengths of the prepared rows in their order.

    Exact where `is_foreseen`; else other rows may be left out of a last, short epoch.
    """
    import numpy

    multiple = (train.get("pad_to_multiple_of") or 1) if flattened(train) else 1
    size, found = train["per_device_train_batch_size"], 0
    for order in _epochs(train, len(lengths)):
        batches = numpy.add.reduceat(lengths[order], numpy.arange(0, len(order), size))
        found += int((-(-batches // multiple) * multiple).sum())
    return found


def is_foreseen(train: Mapping[str, Any], planned: Steps) -> bool:
    """Whether the rows that a run trains on can be told, since their order can be or none is left out."""
    if train.get("train_sampling_strategy", "random") in FORESEEN:
        return True
    return planned.total % planned.per_epoch == 0 and not train.get("dataloader_drop_last")


def longest_batch(train: Mapping[str, Any], lengths: Lengths) -> Batch:
    """The forward pass with the most tokens, padding included, that the run can meet."""
    plan, size = steps(train, len(lengths)), train["per_device_train_batch_size"]
    if train.get("train_sampling_strategy", "random") in FORESEEN and plan.total <= MANY * plan.per_epoch:
        epochs: Iterable[Lengths] = _epochs(train, len(lengths))
    else:
        epochs = [(-lengths).argsort(kind="stable")[:size]]
    found = (_largest(order, lengths, size=size, flat=flattened(train)) for order in epochs)
    return max(found, key=lambda batch: (len(batch.rows) ** (not batch.flat) * batch.length, batch.masked))


def _largest(order: Lengths, lengths: Lengths, *, size: int, flat: bool) -> Batch:
    """The batch with the most tokens of an epoch; of equal ones, one that needs an attention mask."""
    import numpy

    taken, starts = lengths[order], numpy.arange(0, len(order), size)
    longest, total = numpy.maximum.reduceat(taken, starts), numpy.add.reduceat(taken, starts)
    ragged = longest != numpy.minimum.reduceat(taken, starts)
    counts = numpy.minimum(size, len(order) - starts)
    top = int((2 * (total if flat else counts * longest) + ragged).argmax())
    rows = tuple(int(row) for row in order[starts[top] : starts[top] + size])
    return Batch(rows, int((total if flat else longest)[top]), masked=flat or bool(ragged[top]), flat=flat)


def _epochs(train: Mapping[str, Any], rows: int) -> Iterator[Lengths]:
    """The row numbers of each epoch in the order they are trained in, without those left out at its end."""
    plan, accumulation = steps(train, rows), train.get("gradient_accumulation_steps", 1)
    size, left, epoch = train["per_device_train_batch_size"], plan.total, 0
    while left > 0 and plan.batches:
        yield _order(train, rows, epoch)[: min(left * accumulation, plan.batches) * size]
        left, epoch = left - plan.per_epoch, epoch + 1


def _order(train: Mapping[str, Any], rows: int, epoch: int) -> Lengths:
    import numpy
    import torch

    if train.get("train_sampling_strategy", "random") == "sequential":
        return numpy.arange(rows)
    seed = train.get("data_seed")
    generator = torch.Generator().manual_seed((train["seed"] if seed is None else seed) + epoch)
    order: Lengths = torch.randperm(rows, generator=generator).numpy()
    return order


def flattened(train: Mapping[str, Any]) -> bool:
    """Whether the rows of a batch are joined to one (trl 1.16, SFTTrainer: padding-free, or packed bins)."""
    packed = train.get("packing", False) and train.get("packing_strategy", "bfd") != "wrapped"
    return bool(packed or train.get("padding_free", False))
