"""The rows that training will meet: counted where they are prepared or few, else judged by a sample."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data
from loracook.data import cache as kept
from loracook.data.read.selection import select
from loracook.errors import RecipeError
from loracook.estimate.batches import Batch, as_trained, flattened, is_foreseen, longest_batch, tokens
from loracook.recipe.derived import Steps, fixed_steps, steps, warmup

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from loracook.estimate.batches import Lengths
    from loracook.recipe.recipe import Recipe

FEW = 1000
"""Up to so many rows all are prepared, and of more a sample of this size."""


@dataclass(frozen=True)
class Survey:
    """Prepared training rows, blocks when packed: how many, and the lengths in tokens of those looked at.

    `rows` is None when the data is streamed; `longest` is the length of the longest text that is read in one
    go, in training or evaluation; `over_limits` says which limits of the recipe would stop a run.
    """

    rows: int | None
    lengths: Lengths
    evaluation: int
    source: str
    longest: int
    over_limits: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every row was looked at."""
        return self.rows == len(self.lengths)


def survey(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path) -> Survey:
    """What is known of the rows of a recipe; `tokenizer` has gone through `data.with_template`.

    Raises:
        RecipeError: the data cannot be used or reached.
    """
    if kept.is_kept(cache / "data" / kept.key(recipe, tokenizer)):
        return surveyed(recipe, data.prepare(recipe, tokenizer, cache))
    if recipe["dataset"].get("streaming"):
        return _streamed(recipe, tokenizer)
    selection = select(recipe)
    total = _rows(selection.training)
    with tempfile.TemporaryDirectory(prefix="loracook-") as folder:
        if total <= FEW:
            return _counted(recipe, data.prepare(recipe, tokenizer, Path(folder)), f"all {total} rows")
        sample = data.prepare(_sampled(recipe, len(selection.training)), tokenizer, Path(folder))
        looked = _counted(recipe, sample, f"a sample of {_read(sample)} of {total} rows")
    rows = round(total * len(looked.lengths) / _read(sample))
    return replace(looked, rows=rows, evaluation=_rows(selection.evaluation))


def _read(sample: data.Prepared) -> int:
    return sum(source["used_rows"] for source in sample.statistics["sources"] if source["use"] == "train")


def steps_of(recipe: Recipe, found: Survey | None) -> Steps | None:
    """The optimizer steps, from the rows or from `max_steps`; None when neither tells.

    Raises:
        RecipeError: the last batch, which is dropped, is the only one.
    """
    train = as_trained(recipe)
    if found is not None and found.rows is not None:
        planned = steps(train, found.rows)
        if not planned.batches:
            message = f"drops the only batch: there are {found.rows} rows; write false, or a smaller batch"
            raise RecipeError([recipe.problem(("train", "dataloader_drop_last"), message)])
        return planned
    total = fixed_steps(train)
    if total is None:
        return None
    size = train["per_device_train_batch_size"] * train.get("gradient_accumulation_steps", 1)
    return Steps(total, 0, warmup(train, total), 0, size)


def tokens_of(recipe: Recipe, found: Survey, planned: Steps) -> int:
    """Tokens of the whole run, padding left out; from a sample, their mean for all."""
    if found.exact:
        return tokens(as_trained(recipe), found.lengths)
    rows = min(planned.effective_batch_size, found.rows or planned.effective_batch_size)
    return round(planned.total * rows * float(found.lengths.mean()))


def is_exact(recipe: Recipe, found: Survey, planned: Steps) -> bool:
    """Whether the tokens of the whole run can be told to the last one."""
    return found.exact and is_foreseen(as_trained(recipe), planned)


def batch_of(recipe: Recipe, found: Survey | None) -> Batch:
    """The largest forward pass that is to be expected; without rows, one as large as the recipe allows."""
    train = as_trained(recipe)
    size, limit = train["per_device_train_batch_size"], train["max_length"]
    if found is not None and found.exact and steps(train, len(found.lengths)).batches:
        return longest_batch(train, found.lengths.clip(0, limit))
    longest = limit if found is None else int(found.lengths.clip(0, limit).max())
    if flattened(train):
        return Batch(tuple(range(size)), longest * size, masked=True, flat=True)
    return Batch(tuple(range(size)), longest, masked=size > 1)


def _streamed(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Survey:
    """The first rows of streamed data, whose number nobody knows."""
    with tempfile.TemporaryDirectory(prefix="loracook-") as folder:
        return surveyed(recipe, data.prepare(recipe, tokenizer, Path(folder)))


def surveyed(recipe: Recipe, prepared: data.Prepared) -> Survey:
    """What is known of rows that are prepared: all, or the first ones of a stream."""
    import numpy

    if not recipe["dataset"].get("streaming"):
        return _counted(recipe, prepared, "the prepared data")
    first = [len(row["input_ids"]) for row in itertools.islice(prepared.train, FEW)]
    evaluation = prepared.statistics["rows"]["evaluation"]
    said = f"the first {len(first)} rows of a stream"
    return Survey(None, numpy.array(first), evaluation, said, _longest(recipe, prepared))


def _rows(parts: Iterable[Any]) -> int:
    return sum(len(part) for part in parts)


def _counted(recipe: Recipe, prepared: data.Prepared, source: str) -> Survey:
    lengths = row_lengths(prepared.train)
    evaluation = len(prepared.evaluation) if prepared.evaluation is not None else 0
    over = tuple(str(problem) for problem in data.over_limits(prepared.statistics, recipe))
    return Survey(len(lengths), lengths, evaluation, source, _longest(recipe, prepared), over)


def _longest(recipe: Recipe, prepared: data.Prepared) -> int:
    train, told = recipe["train"], prepared.statistics
    limit: int = train["max_length"]
    if train.get("packing") and train.get("packing_strategy") == "wrapped":
        return limit
    return min(limit, int(max(told["lengths"]["longest"], told["evaluation_longest"])))


def row_lengths(rows: Dataset) -> Lengths:
    """The length in tokens of every row, in their order."""
    import numpy
    import pyarrow.compute

    table = rows.select_columns(["input_ids"]).with_format("arrow")
    parts = [
        pyarrow.compute.list_value_length(table[start : start + FEW]["input_ids"]).to_numpy()
        for start in range(0, len(table), FEW)
    ]
    return numpy.concatenate([*parts, numpy.empty(0, numpy.int64)]).astype(numpy.int64)


def _sampled(recipe: Recipe, sources: int) -> Recipe:
    """The recipe with at most FEW rows of its data and none held out."""
    dataset: dict[str, Any] = {key: value for key, value in recipe["dataset"].items() if key != "eval"}
    few = max(FEW // sources, 1)
    if "sources" in dataset:
        dataset["sources"] = [
            entry | {"rows": min(entry.get("rows", few), few)} for entry in dataset["sources"]
        ]
    else:
        dataset["rows"] = min(dataset.get("rows", few), few)
    return replace(recipe, sections={**recipe.sections, "dataset": dataset})
