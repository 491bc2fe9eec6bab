"""Selection: which rows train, which evaluate, how often and in which order; drawn by the seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.data.read import sources
from loracook.data.read.rows import Place, Row
from loracook.data.read.scan import Scan, scan, sound, usable
from loracook.data.read.sources import Source
from loracook.errors import RecipeError
from loracook.recipe.derived import held_out

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

OUT, TRAIN, EVALUATION = 0, 1, 2
SAMPLE = 2000
"""How many rows are looked at before a run that streams them."""


@dataclass(frozen=True)
class Located:
    """A row, where it stands, the number of its source, and whether it was there before."""

    source: int
    place: Place
    row: Row
    again: bool = False


@dataclass(frozen=True)
class Part:
    """The rows of one source that are used: for each pass over it, the use of every row by its index."""

    source: Source
    number: int
    passes: tuple[bytes, ...]
    use: int

    def __len__(self) -> int:
        return sum(uses.count(self.use) for uses in self.passes)

    def __iter__(self) -> Iterator[Located]:
        for again, uses in enumerate(self.passes):
            for use, (place, row) in zip(uses, usable(self.source), strict=False):
                if use == self.use:
                    yield Located(self.number, place, row, bool(again))


@dataclass(frozen=True)
class Stretch:
    """The rows of a streamed source from one index up to another, or to its end."""

    source: Source
    number: int
    start: int
    stop: int | None

    def __iter__(self) -> Iterator[Located]:
        for place, row in itertools.islice(sound(self.source), self.start, self.stop):
            yield Located(self.number, place, row)


@dataclass(frozen=True)
class Selection:
    """The rows of a recipe: what was found in each source, and the rows that train and evaluate."""

    scans: tuple[Scan, ...]
    training: tuple[Part, ...] | tuple[Stretch, ...]
    evaluation: tuple[Part, ...] | tuple[Stretch, ...]
    mix: str

    @property
    def training_rows(self) -> int:
        """The number of rows that train; 0 where they are streamed."""
        return sum(len(part) for part in self.training if isinstance(part, Part))

    def train(self) -> Iterator[Located]:
        """The rows that train, in their order."""
        if self.mix != "interleave":
            return itertools.chain.from_iterable(self.training)
        sizes = [len(part) if isinstance(part, Part) else 1 for part in self.training]
        return interleaved(self.training, sizes)

    def sample(self) -> Iterator[Located]:
        """The first rows that train, of every source as many."""
        each = SAMPLE // len(self.training)
        return itertools.chain.from_iterable(itertools.islice(part, each) for part in self.training)

    def evaluate(self) -> Iterator[Located]:
        """The rows that evaluate, in their order."""
        return itertools.chain.from_iterable(self.evaluation)


def select(recipe: Recipe) -> Selection:
    """Read every source once and decide the use of every row; raises RecipeError for what cannot be."""
    if recipe["dataset"].get("streaming"):
        return _streamed(recipe)
    dataset, seed = recipe["dataset"], recipe["train"]["seed"]
    scans = tuple(scan(source) for source in sources.training(recipe))
    own = sources.evaluation(recipe)
    held = _held_out(recipe, [found.limit for found in scans])
    draws = [_draw(dataset, f"{seed}-{number}") for number in range(len(scans))]
    passes = [_passes(*of_source) for of_source in zip(scans, held, draws, strict=True)]
    training = tuple(Part(found.source, i, passes[i], TRAIN) for i, found in enumerate(scans))
    evaluation = tuple(Part(found.source, i, passes[i][:1], EVALUATION) for i, found in enumerate(scans))
    if own:
        evaluation = (_own(recipe, scan_own := scan(own), len(scans)),)
        scans = (*scans, scan_own)
    used = tuple(part for part in evaluation if len(part))
    return Selection(scans, training, used, dataset["mix"])


def evaluation_rows(recipe: Recipe) -> Iterator[Located]:
    """The rows that evaluate; the training rows are left unread where they have a source of their own."""
    own = sources.evaluation(recipe)
    if own is None or recipe["dataset"].get("streaming"):
        return select(recipe).evaluate()
    return iter(_own(recipe, scan(own), len(sources.training(recipe))))


def interleaved(parts: Sequence[Iterable[Located]], sizes: Sequence[int]) -> Iterator[Located]:
    """The rows of several parts, each spread evenly over the whole by its size."""
    streams, done = {index: iter(part) for index, part in enumerate(parts)}, [0] * len(parts)
    while streams:
        behind = min(streams, key=lambda index: ((done[index] + 0.5) / max(sizes[index], 1), index))
        done[behind] += 1
        located = next(streams[behind], None)
        if located is None:
            del streams[behind]
        else:
            yield located


def _own(recipe: Recipe, found: Scan, number: int) -> Part:
    """The rows of the source that is there for evaluation alone."""
    draw = _draw(recipe["dataset"], f"{recipe['train']['seed']}-eval")
    uses = _uses(found.rows, [(EVALUATION, found.limit)], draw)
    return Part(found.source, number, (uses,), EVALUATION)


def _streamed(recipe: Recipe) -> Selection:
    """The rows as they come: evaluation takes the first ones of the first source, nothing is drawn."""
    dataset, own = recipe["dataset"], sources.evaluation(recipe)
    scans = [scan(source, SAMPLE) for source in sources.training(recipe)]
    for found in scans:
        if found.source.entry.get("weight", 1) != 1:
            raise found.source.fail(
                "weight", "the number of rows is unknown when streaming; remove the weight"
            )
    held = 0 if own else dataset.get("eval", {}).get("rows", 0)
    training = tuple(
        Stretch(found.source, number, 0 if number else held, found.source.entry.get("rows"))
        for number, found in enumerate(scans)
    )
    evaluation = (Stretch(scans[0].source, 0, 0, held),) if held else ()
    if own:
        evaluation = (Stretch(own, len(scans), 0, own.entry.get("rows")),)
        scans.append(scan(own, SAMPLE))
    return Selection(tuple(scans), training, evaluation, dataset["mix"])


def _held_out(recipe: Recipe, sizes: list[int]) -> list[int]:
    """How many rows of each source are held out for evaluation; raises RecipeError when none is left."""
    held = held_out(dict(recipe.sections), sizes)
    if sum(held) >= sum(sizes):
        message = f"{sum(held)} rows cannot be held out of {sum(sizes)}; at least one has to be left to train"
        key = "rows" if "rows" in recipe["dataset"]["eval"] else "fraction"
        raise RecipeError([recipe.problem(("dataset", "eval", key), message)])
    return held


Draw = Callable[[int], list[int]]


def _draw(dataset: Mapping[str, Any], seed: str) -> Draw:
    """The order in which the rows of a source are taken: by the seed, or as they stand."""
    if not dataset["shuffle"]:
        return lambda count: list(range(count))
    return lambda count: random.Random(seed).sample(range(count), count)


def _passes(found: Scan, held: int, draw: Draw) -> tuple[bytes, ...]:
    """The use of every row in each pass; a weight of 2.5 takes two passes and half of a third."""
    training, weight = found.limit - held, found.source.entry.get("weight", 1)
    whole = _uses(found.rows, [(TRAIN, training), (EVALUATION, held)], draw)
    part = _uses(found.rows, [(TRAIN, round(weight % 1 * training))], draw)
    if weight < 1:
        part = bytes(EVALUATION if use == EVALUATION else some for use, some in zip(whole, part, strict=True))
    return (whole,) * int(weight) + ((part,) if weight % 1 else ())


def _uses(count: int, wanted: list[tuple[int, int]], draw: Draw) -> bytes:
    uses, order = bytearray(count), iter(draw(count))
    for use, number in wanted:
        for index in itertools.islice(order, number):
            uses[index] = use
    return bytes(uses)
