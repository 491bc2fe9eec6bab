"""Rows → token rows, truncated, counted, written in batches and packed with TRL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from loracook.data.read.rows import MAX_CHARACTERS, RowError, characters
from loracook.data.read.scan import EXAMPLES, fails_on_bad_rows
from loracook.data.read.selection import LocatedRow, Selection
from loracook.data.tokenize.encode import MASKED, Encoded, encode
from loracook.data.tokenize.render import Rendered, Renderer
from loracook.data.tokenize.statistics import Tally
from loracook.errors import RecipeError
from loracook.progress import Progress
from loracook.recipe.derived import SPLITTING
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from pyarrow import RecordBatch, Schema
    from pyarrow.ipc import RecordBatchStreamWriter
    from transformers import PreTrainedTokenizerBase

    Rows = TypeVar("Rows", Dataset, IterableDataset)
    Item = TypeVar("Item")

Use = Literal["training", "evaluation"]
BATCH, BATCH_CHARACTERS = 1000, 2**25
"""How many rows are held and written at once, and how many characters they have."""


@dataclass(frozen=True)
class RowEncoder:
    """Turns the rows of a selection into the token rows of one use."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    selection: Selection
    progress: Progress
    use: Use

    def write(self, rows: Iterable[LocatedRow], path: Path, total: int) -> tuple[Tally, bytes]:
        """Write the token rows, of `total` expected ones, to an Arrow file.

        Gives their counts, and what `append` gives. Raises RecipeError if none has a token in the loss.
        """
        tally = Tally(self.tokenizer)
        with arrow_file(path) as file:
            written = self.append(rows, file, tally, total=total)
        self.check(tally)
        if is_packed(self.recipe, self.use):
            self.progress.advance(0, 0, f"packing the {self.use} rows")
            pack_file(self.recipe, path)
        return tally, written

    def append(
        self, rows: Iterable[LocatedRow], file: RecordBatchStreamWriter, tally: Tally, *, total: int
    ) -> bytes:
        """Append the token rows to a file; gives a byte for each row, 0 for one that is dropped, else 1."""
        written = bytearray()
        for batch in _located(rows, BATCH):
            encoded = dict(self.encoded(batch, tally))
            columns = [[row.ids for row in encoded.values()], [row.labels for row in encoded.values()]]
            file.write_batch(token_rows(*columns))
            written += bytes(number in encoded for number in range(len(batch)))
            self.progress.advance(len(written), total, "rows tokenized")
        return bytes(written)

    def check(self, tally: Tally) -> None:
        """Raise RecipeError if no row that was counted has a token in the loss."""
        if tally.rows == len(tally.flaws["fully_masked"]):
            at = ("dataset",) if self.use == "training" else ("dataset", "eval")
            advice = "raise train.max_length or change template.loss"
            message = f"no {self.use} row has a token in the loss; {advice}"
            raise RecipeError([self.recipe.problem(at, message)])

    def stream(self, rows: Iterable[LocatedRow], size: int = 100) -> Iterator[Encoded]:
        """The encoded rows one at a time, reading `size` of them ahead."""
        for batch in _located(rows, size):
            for _, row in self.encoded(batch):
                yield row

    def encoded(
        self, batch: Sequence[LocatedRow], tally: Tally | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        """The encoded rows of a batch with their numbers in it; fully masked ones are counted and dropped."""
        at_once = _cut(self._rendered(batch), lambda each: each[1].characters, MAX_CHARACTERS)
        for rendered in at_once:
            encoded = encode([text for _, text in rendered], self.tokenizer)
            for (number, text), row in zip(rendered, encoded, strict=True):
                truncated = truncate(row, self._limit)
                if tally:
                    tally.add(batch[number], text, row, truncated=truncated)
                if truncated:
                    yield number, truncated

    def _rendered(self, batch: Sequence[LocatedRow]) -> Iterator[tuple[int, Rendered]]:
        faults = []
        for number, located in enumerate(batch):
            try:
                yield number, self._renderer.render(located.row)
            except RowError as error:
                faults.append(f"{located.place}: {error}")
                self.selection.scans[located.source].skip(error.reason, faults[-1])
        if faults and fails_on_bad_rows(self.selection.scans[0].source):
            raise RecipeError([self.recipe.problem(("template",), fault) for fault in faults[:EXAMPLES]])

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.recipe, self.tokenizer)

    @cached_property
    def _limit(self) -> int | None:
        return max_row_length(self.recipe, self.use)


@contextmanager
def arrow_file(path: Path) -> Iterator[RecordBatchStreamWriter]:
    """An Arrow file to write token rows to."""
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, _schema()) as stream:
        yield stream


def token_rows(ids: Any, labels: Any) -> RecordBatch:
    """Token rows as Arrow has them, from the tokens and the labels of each."""
    import pyarrow

    schema = _schema()
    arrays = [pyarrow.array(column, schema.field(0).type) for column in (ids, labels)]
    return pyarrow.record_batch(arrays, schema=schema)


def _schema() -> Schema:
    import pyarrow

    ids = pyarrow.list_(pyarrow.int32())
    return pyarrow.schema([("input_ids", ids), ("labels", ids)])


def truncate(row: Encoded, limit: int | None) -> Encoded | None:
    """The first `limit` tokens of a row, None if none of them are in the loss."""
    truncated = Encoded(row.ids[:limit], row.labels[:limit], row.turns)
    return truncated if bool((truncated.labels != MASKED).any()) else None


def is_packed(recipe: Recipe, use: Use) -> bool:
    """Whether the rows of this use are packed; `eval_packing` defaults to `packing`."""
    train = recipe["train"]
    packing = bool(train.get("packing", False))
    return packing if use == "training" else bool(train.get("eval_packing", packing))


def max_row_length(recipe: Recipe, use: Use) -> int | None:
    """The most tokens a row may have before packing, None if packing splits long rows instead."""
    train = recipe["train"]
    splits = is_packed(recipe, use) and train.get("packing_strategy") in SPLITTING
    return None if splits else int(train["max_length"])


def pack_file(recipe: Recipe, path: Path) -> None:
    """Pack the rows of an Arrow file in order; the same rows always result in the same bytes."""
    from datasets import Dataset

    packed = path.with_name("packed.arrow")
    # By default the fingerprint, which is stored in the file, depends on the source's modification time.
    pack(recipe, Dataset.from_file(str(path)), cache_file_name=str(packed), new_fingerprint="packed")
    packed.replace(path)


def pack(recipe: Recipe, rows: Rows, **writing: str) -> Rows:
    """The rows packed into sequences of `max_length` tokens."""
    from trl import pack_dataset

    train = recipe["train"]
    packed: Rows = pack_dataset(rows, train["max_length"], train.get("packing_strategy", "bfd"), writing)
    return packed


def _located(rows: Iterable[LocatedRow], size: int) -> Iterator[list[LocatedRow]]:
    """The rows, at most `size` at a time."""
    stream = iter(rows)
    while first := next(stream, None):
        batch = itertools.chain([first], itertools.islice(stream, size - 1))
        yield from _cut(batch, lambda located: characters(located.row), BATCH_CHARACTERS)


def _cut(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """The items in lists whose sizes add up to `most` or less, a larger item in a list of its own."""
    batch: list[Item] = []
    total = 0
    for item in items:
        total += size(item)
        if batch and total > most:
            yield batch
            batch, total = [], size(item)
        batch.append(item)
    if batch:
        yield batch
