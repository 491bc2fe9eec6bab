"""Rows → token rows, truncated, counted and written in batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import RowError
from loracook.data.read.scan import EXAMPLES, fails_on_bad_rows
from loracook.data.read.selection import LocatedRow, Selection
from loracook.data.tokenize.encode import MASKED, Encoded, encode
from loracook.data.tokenize.render import Rendered, Renderer
from loracook.data.tokenize.statistics import Tally
from loracook.errors import RecipeError
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 1000


@dataclass(frozen=True)
class RowEncoder:
    """Turns the rows of a selection into token rows of at most `limit` tokens, None for no limit."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    selection: Selection
    limit: int | None
    progress: Progress

    def write(self, rows: Iterable[LocatedRow], path: Path, total: int) -> Tally:
        """Write the encoded rows to an Arrow file and return their counts; `total` rows are expected."""
        import pyarrow

        tally, done = Tally(self.tokenizer), 0
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, _schema()) as stream:
            for batch in _batches(rows, BATCH):
                stream.write_batch(_columns(list(self.encoded(batch, tally))))
                done += len(batch)
                self.progress.advance(done, total, "rows tokenized")
        return tally

    def stream(self, rows: Iterable[LocatedRow], size: int = 100) -> Iterator[Encoded]:
        """The encoded rows one at a time, reading `size` of them ahead."""
        for batch in _batches(rows, size):
            yield from self.encoded(batch)

    def encoded(self, batch: Sequence[LocatedRow], tally: Tally | None = None) -> Iterator[Encoded]:
        """The encoded rows of a batch; fully masked ones are counted and dropped."""
        rendered = list(self._rendered(batch))
        encoded = encode([text for _, text in rendered], self.tokenizer)
        for (located, text), row in zip(rendered, encoded, strict=True):
            truncated = truncate(row, self.limit)
            if tally:
                tally.add(located, text.text, row, truncated=truncated)
            if truncated:
                yield truncated

    def _rendered(self, batch: Sequence[LocatedRow]) -> Iterator[tuple[LocatedRow, Rendered]]:
        faults = []
        for located in batch:
            try:
                yield located, self._renderer.render(located.row)
            except RowError as error:
                faults.append(f"{located.place}: {error}")
                self.selection.scans[located.source].skip(error.reason, faults[-1])
        if faults and fails_on_bad_rows(self.selection.scans[0].source):
            raise RecipeError([self.recipe.problem(("template",), fault) for fault in faults[:EXAMPLES]])

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.recipe, self.tokenizer)


def truncate(row: Encoded, limit: int | None) -> Encoded | None:
    """The first `limit` tokens of a row, None if none of them are in the loss."""
    truncated = Encoded(row.ids[:limit], row.labels[:limit])
    return truncated if bool((truncated.labels != MASKED).any()) else None


def _batches(rows: Iterable[LocatedRow], size: int) -> Iterator[list[LocatedRow]]:
    stream = iter(rows)
    while batch := list(itertools.islice(stream, size)):
        yield batch


def _schema() -> Any:
    import pyarrow

    ids = pyarrow.list_(pyarrow.int32())
    return pyarrow.schema([("input_ids", ids), ("labels", ids)])


def _columns(rows: Sequence[Encoded]) -> Any:
    """The rows as an Arrow record batch."""
    import numpy
    import pyarrow

    offsets = numpy.cumsum([0, *(len(row.ids) for row in rows)], dtype=numpy.int32)
    empty = numpy.empty(0, dtype=numpy.int32)
    columns = [
        pyarrow.ListArray.from_arrays(offsets, numpy.concatenate([empty, *parts]))
        for parts in ([row.ids for row in rows], [row.labels for row in rows])
    ]
    return pyarrow.record_batch(columns, schema=_schema())
