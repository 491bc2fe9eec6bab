"""Which rows are used for training and evaluation, how often and in which order; drawn by the seed."""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from loracook.data.read import sources
from loracook.data.read.rows import Place, Row
from loracook.data.read.scan import Scan, checked_rows, scan, usable_rows
from loracook.data.read.sources import Source
from loracook.errors import RecipeError
from loracook.progress import Progress
from loracook.recipe.derived import held_out
from loracook.recipe.recipe import Recipe

Item = TypeVar("Item")
UNUSED, TRAIN, EVALUATION = 0, 1, 2
STREAM_SAMPLE = 2000
"""How many rows of streamed data are examined before a run."""


@dataclass(frozen=True)
class LocatedRow:
    """A row with its source (counted from 0) and place; `repeated` in every pass but the first."""

    source: int
    place: Place
    row: Row
    repeated: bool = False


@dataclass(frozen=True)
class SelectedRows:
    """The rows of one source with one use, of which each record has `rows_in`.

    `passes` has, for each pass, the use of every row by its index.
    """

    source: Source
    number: int
    passes: tuple[bytes, ...]
    use: int
    rows_in: Sequence[int]

    def __len__(self) -> int:
        return sum(uses.count(self.use) for uses in self.passes)

    def __iter__(self) -> Iterator[LocatedRow]:
        for index, uses in enumerate(self.passes):
            wanted = (self.use in of_record for of_record in self._by_record(uses))
            read = (use for of_record in self._by_record(uses) if self.use in of_record for use in of_record)
            for use, (place, row) in zip(read, usable_rows(self.source, wanted), strict=False):
                if use == self.use:
                    yield LocatedRow(self.number, place, row, repeated=index > 0)

    def _by_record(self, uses: bytes) -> Iterator[bytes]:
        """The uses of the rows of each record."""
        start = 0
        for count in self.rows_in:
            yield uses[start : start + count]
            start += count


@dataclass(frozen=True)
class StreamedRows:
    """The rows of a streamed source from one index up to another, or to its end."""

    source: Source
    number: int
    start: int
    stop: int | None

    def __iter__(self) -> Iterator[LocatedRow]:
        for place, row in itertools.islice(checked_rows(self.source), self.start, self.stop):
            yield LocatedRow(self.number, place, row)


Parts = tuple[SelectedRows, ...] | tuple[StreamedRows, ...]


@dataclass(frozen=True)
class Selection:
    """The rows of a recipe: the scan of each source, and the rows for training and evaluation."""

    scans: tuple[Scan, ...]
    training: Parts
    evaluation: Parts
    mix: str

    @property
    def training_rows(self) -> int:
        """The number of training rows; 0 where they are streamed."""
        return row_count(self.training)

    def train(self) -> Iterator[LocatedRow]:
        """The training rows in order."""
        if self.mix != "interleave":
            return itertools.chain.from_iterable(self.training)
        sizes = [len(part) if isinstance(part, SelectedRows) else 1 for part in self.training]
        return interleave(self.training, sizes)

    def sample(self) -> Iterator[LocatedRow]:
        """The first training rows, equally many of each source."""
        each = STREAM_SAMPLE // len(self.training)
        return itertools.chain.from_iterable(itertools.islice(part, each) for part in self.training)

    def evaluate(self) -> Iterator[LocatedRow]:
        """The evaluation rows in order."""
        return itertools.chain.from_iterable(self.evaluation)


def row_count(parts: Parts) -> int:
    """How many rows the parts have; 0 where they are streamed."""
    return sum(len(part) for part in parts if isinstance(part, SelectedRows))


def select(recipe: Recipe, progress: Progress) -> Selection:
    """Read every source once and decide the use of each row; raises RecipeError for unusable data."""
    if recipe["dataset"].get("streaming"):
        return _select_streamed(recipe, progress)
    scans = tuple(scan(source, progress) for source in sources.training(recipe))
    eval_source = sources.evaluation(recipe)
    held = _held_out(recipe, [result.limit for result in scans])
    orders = [_order(recipe, result.rows, str(number)) for number, result in enumerate(scans)]
    passes = [_passes(*of_source) for of_source in zip(scans, held, orders, strict=True)]
    training = tuple(
        SelectedRows(result.source, i, passes[i], TRAIN, result.rows_in) for i, result in enumerate(scans)
    )
    evaluation = tuple(
        SelectedRows(result.source, i, passes[i][:1], EVALUATION, result.rows_in)
        for i, result in enumerate(scans)
    )
    if eval_source:
        eval_scan = scan(eval_source, progress)
        evaluation = (_select_evaluation(recipe, eval_scan, len(scans)),)
        scans = (*scans, eval_scan)
    return Selection(
        scans, training, tuple(part for part in evaluation if len(part)), recipe["dataset"]["mix"]
    )


def evaluation_rows(recipe: Recipe, progress: Progress) -> Iterator[LocatedRow]:
    """The evaluation rows; the training rows are not read if evaluation has a source of its own."""
    eval_source = sources.evaluation(recipe)
    if eval_source is None or recipe["dataset"].get("streaming"):
        return select(recipe, progress).evaluate()
    return iter(_select_evaluation(recipe, scan(eval_source, progress), len(sources.training(recipe))))


def interleave(parts: Sequence[Iterable[Item]], sizes: Sequence[int]) -> Iterator[Item]:
    """The rows of several parts, or others, each spread evenly over the whole according to its size."""
    streams, done = {index: iter(part) for index, part in enumerate(parts)}, [0] * len(parts)
    while streams:
        behind = min(streams, key=lambda index: ((done[index] + 0.5) / max(sizes[index], 1), index))
        done[behind] += 1
        row = next(streams[behind], None)
        if row is None:
            del streams[behind]
        else:
            yield row


def _select_evaluation(recipe: Recipe, result: Scan, number: int) -> SelectedRows:
    """The rows of the source that is for evaluation only."""
    uses = _uses(_order(recipe, result.rows, "eval"), [(EVALUATION, result.limit)])
    return SelectedRows(result.source, number, (uses,), EVALUATION, result.rows_in)


def _select_streamed(recipe: Recipe, progress: Progress) -> Selection:
    """The rows as they arrive: evaluation takes the first ones of the first source, nothing is drawn."""
    dataset, eval_source = recipe["dataset"], sources.evaluation(recipe)
    scans = [scan(source, progress, STREAM_SAMPLE) for source in sources.training(recipe)]
    for result in scans:
        if result.source.entry.get("weight", 1) != 1:
            message = "requires a known number of rows, which streaming does not have; remove the weight"
            raise result.source.fail("weight", message)
    held = 0 if eval_source else dataset.get("eval", {}).get("rows", 0)
    training = tuple(
        StreamedRows(result.source, number, 0 if number else held, result.source.entry.get("rows"))
        for number, result in enumerate(scans)
    )
    evaluation = (StreamedRows(scans[0].source, 0, 0, held),) if held else ()
    if eval_source:
        evaluation = (StreamedRows(eval_source, len(scans), 0, eval_source.entry.get("rows")),)
        scans.append(scan(eval_source, progress, STREAM_SAMPLE))
    return Selection(tuple(scans), training, evaluation, dataset["mix"])


def _held_out(recipe: Recipe, sizes: list[int]) -> list[int]:
    """How many rows of each source are held out for evaluation; raises RecipeError if none are left."""
    held = held_out(dict(recipe.sections), sizes)
    if sum(held) >= sum(sizes):
        message = f"cannot hold out {sum(held)} of {sum(sizes)} rows; leave at least one for training"
        key = "rows" if "rows" in recipe["dataset"]["eval"] else "fraction"
        raise RecipeError([recipe.problem(("dataset", "eval", key), message)])
    return held


def _order(recipe: Recipe, count: int, name: str) -> Sequence[int]:
    """The order in which the rows of a source are taken: shuffled by the seed, or as in the data."""
    if not recipe["dataset"]["shuffle"]:
        return range(count)
    return random.Random(f"{recipe['train']['seed']}-{name}").sample(range(count), count)


def _passes(result: Scan, held: int, order: Sequence[int]) -> tuple[bytes, ...]:
    """The use of every row in each pass; a weight of 2.5 takes two passes and half of a third."""
    training, weight = result.limit - held, result.source.entry.get("weight", 1)
    whole = _uses(order, [(TRAIN, training), (EVALUATION, held)])
    part = _uses(order, [(TRAIN, round(weight % 1 * training))])
    if weight < 1:
        part = bytes(EVALUATION if use == EVALUATION else some for use, some in zip(whole, part, strict=True))
    return (whole,) * int(weight) + ((part,) if weight % 1 else ())


def _uses(order: Sequence[int], wanted: list[tuple[int, int]]) -> bytes:
    uses, indices = bytearray(len(order)), iter(order)
    for use, number in wanted:
        for index in itertools.islice(indices, number):
            uses[index] = use
    return bytes(uses)
