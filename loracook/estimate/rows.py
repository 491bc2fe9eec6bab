"""The rows that training will meet: counted where they are cached or few, else estimated from a sample."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data
from loracook.data.order import Taken
from loracook.data.part import FEW
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    import numpy
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    Lengths = NDArray[numpy.int64]

SILENT = Silent()


@dataclass(frozen=True)
class RowStats:
    """Prepared training rows (blocks when packed): how many, and the lengths in tokens of those counted.

    `count` is None when the data is streamed; `source` says what was counted; `longest` is the length of the
    longest text in one forward pass, in training or evaluation; `evaluation` is the number of evaluation
    rows; `over_limits` has the problems that would stop a run; `taken` says which of the usable rows were
    counted, None if all were, or a sample.
    """

    count: int | None
    lengths: Lengths
    source: str
    longest: int
    evaluation: int = 0
    over_limits: tuple[str, ...] = ()
    taken: Taken | None = None

    @property
    def exact(self) -> bool:
        """Whether every row that is trained was counted."""
        return self.count == (len(self.lengths) if self.taken is None else self.taken.per_epoch)


def row_stats(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path) -> RowStats:
    """The rows of a recipe; `tokenizer` has gone through `data.with_template`.

    Raises:
        RecipeError: the data cannot be used or reached.
    """
    if data.is_prepared(recipe, tokenizer, cache):
        return prepared_stats(recipe, data.prepare(recipe, tokenizer, cache, progress=SILENT))
    with tempfile.TemporaryDirectory(prefix="loracook-") as folder:
        if recipe["dataset"].get("streaming"):
            return prepared_stats(recipe, data.prepare(recipe, tokenizer, Path(folder), progress=SILENT))
        selection = data.select(recipe, SILENT)
        total = selection.training_rows
        if total <= FEW:
            return _counted(
                recipe, data.prepare(recipe, tokenizer, Path(folder), progress=SILENT), f"all {total} rows"
            )
        sample = data.prepare(
            _sampled(recipe, len(selection.training)), tokenizer, Path(folder), progress=SILENT
        )
        used = sum(source["used_rows"] for source in sample.statistics["sources"] if source["use"] == "train")
        stats = _counted(recipe, sample, f"a sample of {used} of {total} rows")
    count, evaluation = round(total * len(stats.lengths) / used), data.row_count(selection.evaluation)
    return replace(stats, count=count, evaluation=evaluation, taken=None)


def prepared_stats(recipe: Recipe, prepared: data.Prepared) -> RowStats:
    """The stats of rows that are prepared: of all, or of the first ones of a stream."""
    import numpy

    if not recipe["dataset"].get("streaming"):
        return _counted(recipe, prepared, "the prepared data")
    first = [len(row["input_ids"]) for row in itertools.islice(prepared.train, FEW)]
    source = f"the first {len(first)} rows of a stream"
    evaluation = prepared.statistics["rows"]["evaluation"]
    return RowStats(None, numpy.array(first), source, _longest(recipe, prepared), evaluation)


def _counted(recipe: Recipe, prepared: data.Prepared, source: str) -> RowStats:
    lengths = row_lengths(prepared.train)
    over = tuple(str(problem) for problem in data.over_limits(prepared.statistics, recipe))
    evaluation = prepared.statistics["rows"]["evaluation"]
    longest, taken = _longest(recipe, prepared), prepared.taken
    return RowStats(taken.per_epoch, lengths, source, longest, evaluation, over, taken)


def _longest(recipe: Recipe, prepared: data.Prepared) -> int:
    train, statistics = recipe["train"], prepared.statistics
    limit: int = train["max_length"]
    if train.get("packing") and train.get("packing_strategy") == "wrapped":
        return limit
    return min(limit, int(max(statistics["lengths"]["longest"], statistics["evaluation_longest"])))


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
