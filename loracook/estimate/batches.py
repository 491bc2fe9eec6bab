"""The steps and batches of a run: how many, their tokens, and the largest of them.

Source: transformers 5.23, Trainer._run_epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.data.order import Taken, is_predictable, train_arguments, training_order
from loracook.errors import RecipeError
from loracook.estimate.rows import RowStats
from loracook.recipe.derived import Steps, fixed_steps, steps, warmup
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from loracook.estimate.rows import Lengths

MANY = 20
"""Epochs beyond which the largest batch is taken to be one of the longest rows, which it comes close to."""


@dataclass(frozen=True)
class Batch:
    """A forward pass: the numbers of its rows, its length in tokens, and whether it needs an attention mask.

    A flat batch has all rows concatenated into one, whose length is their sum.
    """

    rows: tuple[int, ...]
    length: int
    masked: bool
    flat: bool = False


@dataclass(frozen=True)
class TokenCount:
    """The tokens of a whole run, padding left out, and whether the count is exact."""

    total: int
    exact: bool


def is_flat(train: Mapping[str, Any]) -> bool:
    """Whether the rows of a batch are concatenated (trl 1.16, SFTTrainer: padding-free, or packed bins)."""
    packed = train.get("packing", False) and train.get("packing_strategy", "bfd") != "wrapped"
    return bool(packed or train.get("padding_free", False))


def planned_steps(recipe: Recipe, rows: RowStats | None) -> Steps | None:
    """The optimizer steps, from the rows or from `max_steps`; None when neither tells.

    Raises:
        RecipeError: the only batch is incomplete, and incomplete batches are dropped.
    """
    train = train_arguments(recipe)
    if rows is not None and rows.count is not None:
        planned = steps(train, rows.count)
        if not planned.batches:
            message = (
                f"drops the only batch: there are {rows.count} rows; write false, or a smaller batch size"
            )
            raise RecipeError([recipe.problem(("train", "dataloader_drop_last"), message)])
        return planned
    total = fixed_steps(train)
    if total is None:
        return None
    size = train["per_device_train_batch_size"] * train.get("gradient_accumulation_steps", 1)
    return Steps(total, 0, warmup(train, total), 0, size)


def count_tokens(recipe: Recipe, rows: RowStats, planned: Steps) -> TokenCount:
    """The tokens of the whole run; from a sample, the mean row times the number of rows."""
    train = train_arguments(recipe)
    if rows.exact:
        return TokenCount(trained_tokens(train, rows.lengths, rows.taken), _is_certain(train, planned))
    size = min(planned.effective_batch_size, rows.count or planned.effective_batch_size)
    return TokenCount(round(planned.total * size * float(rows.lengths.mean())), exact=False)


def largest_batch(recipe: Recipe, rows: RowStats | None) -> Batch:
    """The largest forward pass to be expected; without rows, one as large as the recipe allows."""
    train = train_arguments(recipe)
    size, limit = train["per_device_train_batch_size"], train["max_length"]
    if rows is not None and rows.exact and steps(train, rows.count or 0).batches:
        return longest_batch(train, rows.lengths.clip(0, limit), rows.taken)
    longest = limit if rows is None else int(rows.lengths.clip(0, limit).max())
    if is_flat(train):
        return Batch(tuple(range(size)), longest * size, masked=True, flat=True)
    return Batch(tuple(range(size)), longest, masked=size > 1)


def trained_tokens(train: Mapping[str, Any], lengths: Lengths, taken: Taken | None = None) -> int:
    """Tokens of a whole run, padding left out, from the lengths of the prepared rows in their order.

    These are all usable rows, unless `taken` says which.
    """
    import numpy

    multiple = (train.get("pad_to_multiple_of") or 1) if is_flat(train) else 1
    size, total = train["per_device_train_batch_size"], 0
    for order in _epochs(train, taken or Taken.all_of(len(lengths))):
        batches = numpy.add.reduceat(lengths[order], numpy.arange(0, len(order), size))
        total += int((-(-batches // multiple) * multiple).sum())
    return total


def longest_batch(train: Mapping[str, Any], lengths: Lengths, taken: Taken | None = None) -> Batch:
    """The forward pass with the most tokens, padding included, that the run can meet, of such lengths."""
    taken = taken or Taken.all_of(len(lengths))
    plan, size = steps(train, taken.per_epoch), train["per_device_train_batch_size"]
    if is_predictable(train) and plan.total <= MANY * plan.per_epoch:
        epochs: Iterable[Lengths] = _epochs(train, taken)
    else:
        epochs = [(-lengths).argsort(kind="stable")[:size]]
    batches = (_largest(order, lengths, size=size, flat=is_flat(train)) for order in epochs)
    return max(batches, key=lambda batch: (len(batch.rows) ** (not batch.flat) * batch.length, batch.masked))


def _is_certain(train: Mapping[str, Any], planned: Steps) -> bool:
    """Whether the rows that a run trains on are known: their order is, or none is left out."""
    if is_predictable(train):
        return True
    return planned.total % planned.per_epoch == 0 and not train.get("dataloader_drop_last")


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


def _epochs(train: Mapping[str, Any], taken: Taken) -> Iterator[Lengths]:
    """The row numbers of each epoch in training order, without those left out at its end."""
    plan, accumulation = steps(train, taken.per_epoch), train.get("gradient_accumulation_steps", 1)
    size, left, epoch = train["per_device_train_batch_size"], plan.total, 0
    while left > 0 and plan.batches:
        order = taken.prepared(training_order(train, len(taken.marks), epoch))
        yield order[: min(left * accumulation, plan.batches) * size]
        left, epoch = left - plan.per_epoch, epoch + 1
