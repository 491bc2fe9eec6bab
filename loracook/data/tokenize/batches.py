"""Located rows → token rows, cut to what is trained, counted and written many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import RowError
from loracook.data.read.scan import EXAMPLES, fails
from loracook.data.read.selection import Located, Selection
from loracook.data.tokenize.encode import MASKED, Encoded, encode
from loracook.data.tokenize.render import Rendered, Renderer
from loracook.data.tokenize.statistics import Tally
from loracook.errors import RecipeError
from loracook.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe

BATCH = 1000


@dataclass(frozen=True)
class Work:
    """Turning the rows of a selection into token rows; `limit` is the longest a row may be, None for any."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    selection: Selection
    limit: int | None
    progress: Progress | None = None

    def write(self, rows: Iterable[Located], path: Path, total: int) -> Tally:
        """Write what is left of `total` rows to an arrow file and return what was counted."""
        import pyarrow

        tally, done = Tally(self.tokenizer), 0
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, _schema()) as stream:
            for batch in _batches(rows, BATCH):
                stream.write_batch(_columns(list(self.encoded(batch, tally))))
                done += len(batch)
                if self.progress:
                    self.progress.advance(done, total, f"{done} of {total} rows prepared")
        return tally

    def stream(self, rows: Iterable[Located], size: int = 100) -> Iterator[Encoded]:
        """What is left of the rows one at a time, `size` of them read ahead."""
        for batch in _batches(rows, size):
            yield from self.encoded(batch)

    def encoded(self, batch: Sequence[Located], tally: Tally | None = None) -> Iterator[Encoded]:
        """What is left of a batch of rows, each row counted."""
        rendered = list(self._rendered(batch))
        wholes = encode([text for _, text in rendered], self.tokenizer)
        for (located, text), whole in zip(rendered, wholes, strict=True):
            cut = truncated(whole, self.limit)
            if tally:
                tally.add(located, text.text, whole, cut)
            if cut:
                yield cut

    def _rendered(self, batch: Sequence[Located]) -> Iterator[tuple[Located, Rendered]]:
        faults = []
        for located in batch:
            try:
                yield located, self._renderer.render(located.row)
            except RowError as error:
                faults.append(f"{located.place}: {error}")
                self.selection.scans[located.source].skip(error.reason, faults[-1])
        if faults and fails(self.selection.scans[0].source):
            raise RecipeError([self.recipe.problem(("template",), fault) for fault in faults[:EXAMPLES]])

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.recipe, self.tokenizer)


def truncated(row: Encoded, limit: int | None) -> Encoded | None:
    """What fits of a row, None when nothing that is learned does."""
    cut = Encoded(row.ids[:limit], row.labels[:limit])
    return cut if bool((cut.labels != MASKED).any()) else None


def _batches(rows: Iterable[Located], size: int) -> Iterator[list[Located]]:
    stream = iter(rows)
    while batch := list(itertools.islice(stream, size)):
        yield batch


def _schema() -> Any:
    import pyarrow

    ids = pyarrow.list_(pyarrow.int32())
    return pyarrow.schema([("input_ids", ids), ("labels", ids)])


def _columns(rows: Sequence[Encoded]) -> Any:
    """The rows as one batch of arrow columns."""
    import numpy
    import pyarrow

    offsets = numpy.cumsum([0, *(len(row.ids) for row in rows)], dtype=numpy.int32)
    empty = numpy.empty(0, dtype=numpy.int32)
    columns = [
        pyarrow.ListArray.from_arrays(offsets, numpy.concatenate([empty, *parts]))
        for parts in ([row.ids for row in rows], [row.labels for row in rows])
    ]
    return pyarrow.record_batch(columns, schema=_schema())
