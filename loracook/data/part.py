"""A part of the rows: those that a short run trains, prepared without the others.

It is the same part whether it is made from the data or from all rows, once these are prepared.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loracook.data.order import (
    DROPPED,
    LEFT,
    TAKEN,
    Taken,
    is_predictable,
    order_seed,
    train_arguments,
    training_order,
)
from loracook.data.read.selection import SelectedRows, Selection, interleave
from loracook.data.tokenize.batches import BATCH, RowEncoder, arrow_file, is_packed, token_rows
from loracook.data.tokenize.statistics import Tally
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

    from loracook.data.order import Numbers

TRAIN, MARKS = "train.arrow", "taken.bin"
FEW = 1000
"""Up to this many rows all are prepared."""
MOST = 10_000
"""A part has at most so many rows; a run of more takes long anyway."""


class MostDroppedError(Exception):
    """A part is sooner found among all rows, each of which is looked at once."""


@dataclass(frozen=True)
class Part:
    """The first `rows` training rows in training order that have a token in the loss; `folder` has them.

    In it they stand in the order of the data.
    """

    folder: Path
    rows: int

    def saves_time(self, usable: int) -> bool:
        """Whether it is to be prepared alone, out of so many usable rows."""
        return usable > FEW and 2 * self.rows <= usable

    def write(self, encoder: RowEncoder, folder: Path) -> tuple[Tally, Taken]:
        """Tokenize it and write it below `folder`; gives the counts, and what became of each usable row.

        Raises MostDroppedError if most rows that are looked at are dropped.
        """
        import numpy

        order = _order(encoder.recipe, encoder.selection.training_rows)
        tally, places, start = Tally(encoder.tokenizer), list[int](), 0
        marks, as_read = bytearray([LEFT]) * len(order), folder / "as_read.arrow"
        by_source = _places(encoder.selection)
        with arrow_file(as_read) as file:
            while (missing := self.rows - len(places)) and start < len(order):
                wanted, start = order[start : start + missing], start + missing
                picked, of_picked = _picked(encoder.selection, by_source, wanted)
                written = encoder.append(picked.train(), file, tally, total=len(wanted))
                for place, there in zip(of_picked, written, strict=True):
                    marks[place] = TAKEN if there else DROPPED
                places += itertools.compress(of_picked, written)
                if 2 * len(places) < start:
                    raise MostDroppedError
        _copy_rows(as_read, numpy.argsort(places), folder / TRAIN)
        as_read.unlink()
        return tally, Taken(bytes(marks))

    def copy(self, whole: Path, folder: Path, recipe: Recipe) -> None:
        """Write below `folder` what `write` does, out of all prepared rows."""
        everything = read_taken(whole)
        taken = everything.first(_order(recipe, len(everything.marks)), self.rows)
        write_taken(taken, folder)
        _copy_rows(whole / TRAIN, everything.prepared(taken.places), folder / TRAIN)


def part_of(whole: Path, recipe: Recipe, first: int | None) -> Part | None:
    """The part with the `first` rows, its folder beside that of all rows, `whole`.

    None where it cannot be known beforehand which rows these are, or where they take long anyway.
    """
    train = train_arguments(recipe)
    known = is_predictable(train) and not is_packed(recipe, "training")
    if first is None or first > MOST or not known or recipe["dataset"].get("streaming"):
        return None
    content = json.dumps([whole.name, first, order_seed(train)])
    return Part(whole.with_name(hashlib.sha256(content.encode()).hexdigest()[:16]), first)


def dataset(path: Path) -> Dataset:
    """The rows in a file of prepared ones."""
    from datasets import Dataset

    return Dataset.from_file(str(path))


def read_taken(folder: Path) -> Taken:
    """What became of each usable row of those in a folder of prepared ones."""
    if (folder / MARKS).exists():
        return Taken((folder / MARKS).read_bytes())
    return Taken.all_of(len(dataset(folder / TRAIN)))


def write_taken(taken: Taken, folder: Path) -> None:
    """Write what became of the rows into their folder, unless all are taken."""
    if taken != Taken.all_of(len(taken.marks)):
        (folder / MARKS).write_bytes(taken.marks)


def _order(recipe: Recipe, rows: int) -> Numbers:
    return training_order(train_arguments(recipe), rows, 0)


def _copy_rows(source: Path, numbers: Numbers, path: Path) -> None:
    """Write these rows of a file of prepared ones to another; the same rows result in the same bytes."""
    rows = dataset(source).select(numbers.tolist()).with_format("arrow")
    with arrow_file(path) as file:
        for table in rows.iter(batch_size=BATCH):
            columns = [table[name].combine_chunks() for name in ("input_ids", "labels")]
            file.write_batch(token_rows(*columns))


def _picked(
    selection: Selection, by_source: Sequence[Numbers], wanted: Numbers
) -> tuple[Selection, list[int]]:
    """The training rows at these places of their order, one source after the other, and the place of each."""
    parts, places = list[SelectedRows](), list[int]()
    for part, of_part in zip(_selected(selection), by_source, strict=True):
        passes = list(_passes(part, of_part, wanted))
        parts.append(replace(part, passes=tuple(uses for uses, _ in passes)))
        places += itertools.chain.from_iterable(of_pass for _, of_pass in passes)
    return replace(selection, training=tuple(parts), mix="concatenate"), places


def _selected(selection: Selection) -> list[SelectedRows]:
    """The training rows of each source, which are not streamed."""
    return [part for part in selection.training if isinstance(part, SelectedRows)]


def _passes(part: SelectedRows, places: Numbers, wanted: Numbers) -> Iterator[tuple[bytes, list[int]]]:
    """The passes over a source with the use of the wanted rows alone, and the places of these."""
    import numpy

    start = 0
    for uses in part.passes:
        rows = numpy.flatnonzero(numpy.frombuffer(uses, numpy.uint8) == part.use)
        of_pass, start = places[start : start + len(rows)], start + len(rows)
        chosen = numpy.isin(of_pass, wanted)
        marks = numpy.zeros(len(uses), numpy.uint8)
        marks[rows[chosen]] = part.use
        yield marks.tobytes(), of_pass[chosen].tolist()


def _places(selection: Selection) -> list[Numbers]:
    """The places that the rows of each source have in the order of `Selection.train`."""
    import numpy

    sizes = [len(part) for part in _selected(selection)]
    turns = numpy.repeat(numpy.arange(len(sizes)), sizes)
    if selection.mix == "interleave":
        each = [itertools.repeat(number, size) for number, size in enumerate(sizes)]
        turns = numpy.fromiter(interleave(each, sizes), numpy.int64)
    return [numpy.flatnonzero(turns == number) for number in range(len(sizes))]
