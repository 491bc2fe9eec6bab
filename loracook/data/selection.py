"""Selection: which rows train, which evaluate, how often and in which order; drawn by the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loracook.data import formats, sources
from loracook.data.rows import Place, Record, Row, RowError
from loracook.data.sources import Source
from loracook.errors import Problem, RecipeError

if TYPE_CHECKING:
    from loracook.recipe import Recipe

OUT, TRAIN, EVALUATION = 0, 1, 2
EXAMPLES = 5


@dataclass(frozen=True)
class Located:
    """A row, where it stands, the number of its source, and whether it was there before."""

    source: int
    place: Place
    row: Row
    again: bool = False


@dataclass
class Scan:
    """What reading all rows of one source found."""

    source: Source
    rows: int = 0
    records: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    place_holders: list[str] = field(default_factory=list)

    def skip(self, reason: str, where: str) -> None:
        """Count a row that cannot be used."""
        self.skipped.setdefault(reason, []).append(where)


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
class Selection:
    """The rows of a recipe: what was found in each source, and the parts that train and evaluate."""

    scans: tuple[Scan, ...]
    training: tuple[Part, ...]
    evaluation: tuple[Part, ...]
    mix: str

    def train(self) -> Iterator[Located]:
        """The rows that train, in their order."""
        return interleaved(self.training) if self.mix == "interleave" else _chained(self.training)

    def evaluate(self) -> Iterator[Located]:
        """The rows that evaluate, in their order."""
        return _chained(self.evaluation)


def select(recipe: Recipe) -> Selection:
    """Read every source once and decide the use of every row; raises RecipeError for what cannot be."""
    dataset, seed = recipe["dataset"], recipe["train"]["seed"]
    scans = tuple(scan(source) for source in sources.training(recipe))
    own = sources.evaluation(recipe)
    held = [0] * len(scans) if own else _held_out(recipe, [_limit(found) for found in scans])
    training, evaluation = [], []
    for number, (found, keep) in enumerate(zip(scans, held, strict=True)):
        draw = _draw(dataset, f"{seed}-{number}")
        passes = _passes(found, keep, draw)
        training.append(Part(found.source, number, passes, TRAIN))
        evaluation.append(Part(found.source, number, passes[:1], EVALUATION))
    if own:
        found = scan(own)
        uses = _uses(found.rows, [(EVALUATION, _limit(found))], _draw(dataset, f"{seed}-eval"))
        scans, evaluation = (*scans, found), [Part(own, len(scans), (uses,), EVALUATION)]
    used = tuple(part for part in evaluation if len(part))
    return Selection(scans, tuple(training), used, dataset.get("mix", "concatenate"))


def scan(source: Source) -> Scan:
    """Read all rows of a source; raises RecipeError for bad ones unless the recipe skips them."""
    source.check()
    found = Scan(source)
    for place, row in usable(source, found):
        found.rows += 1
        if formats.place_holders(row):
            found.place_holders.append(str(place))
    policy = source.recipe["dataset"].get("on_bad_row", "fail")
    if found.skipped and policy == "fail":
        raise RecipeError(_bad_rows(found))
    if not found.rows:
        raise source.fail("where" if source.entry.get("where") else "path", "no row is left to use")
    return found


def usable(source: Source, found: Scan | None = None) -> Iterator[tuple[Place, Row]]:
    """The rows of a source that can be used; the others are counted in `found`."""
    for record in source.records():
        if found:
            found.records += 1
        for row in _rows(record, source):
            if not isinstance(row, RowError):
                yield record.place, row
            elif found:
                found.skip(row.reason, f"{record.place}: {row}")


def _rows(record: Record, source: Source) -> Iterator[Row | RowError]:
    if record.fault:
        return iter([RowError(*record.fault.split(": ", 1))])
    return formats.rows(record.columns, source.shape)


def interleaved(parts: tuple[Part, ...]) -> Iterator[Located]:
    """The rows of several parts, each spread evenly over the whole."""
    streams, done = [iter(part) for part in parts], [0] * len(parts)
    sizes = [len(part) for part in parts]
    for _ in range(sum(sizes)):
        behind = min(
            (index for index, size in enumerate(sizes) if done[index] < size),
            key=lambda index: ((done[index] + 0.5) / sizes[index], index),
        )
        done[behind] += 1
        yield next(streams[behind])


def _chained(parts: tuple[Part, ...]) -> Iterator[Located]:
    for part in parts:
        yield from part


def _bad_rows(found: Scan) -> Iterator[Problem]:
    """Problems for the first bad rows and one that counts them all."""
    source, faults = found.source, [text for places in found.skipped.values() for text in places]
    for text in faults[:EXAMPLES]:
        yield source.fail("path", text).problems[0]
    counts = ", ".join(f"{len(places)} x {reason}" for reason, places in found.skipped.items())
    advice = "mend them or write dataset.on_bad_row: skip"
    yield source.fail("path", f"{len(faults)} of {found.records} rows are bad ({counts}); {advice}").problems[
        0
    ]


def _limit(found: Scan) -> int:
    return int(min(found.rows, found.source.entry.get("rows", found.rows)))


def _held_out(recipe: Recipe, sizes: list[int]) -> list[int]:
    """How many rows of each source are held out for evaluation, in proportion to its size."""
    wanted, total = recipe["dataset"].get("eval", {}), sum(sizes)
    if not wanted:
        return [0] * len(sizes)
    key = "rows" if "rows" in wanted else "fraction"
    count = wanted["rows"] if key == "rows" else max(1, round(wanted["fraction"] * total))
    if count >= total:
        message = f"{count} rows cannot be held out of {total}; at least one has to be left to train"
        raise RecipeError([recipe.problem(("dataset", "eval", key), message)])
    exact = [count * size / total for size in sizes]
    held = [int(share) for share in exact]
    for index in sorted(range(len(sizes)), key=lambda index: held[index] - exact[index])[: count - sum(held)]:
        held[index] += 1
    return held


Draw = Callable[[int], list[int]]


def _draw(dataset: dict[str, Any], seed: str) -> Draw:
    """The order in which the rows of a source are taken: by the seed, or as they stand."""
    if not dataset.get("shuffle", True):
        return lambda count: list(range(count))
    return lambda count: random.Random(seed).sample(range(count), count)


def _passes(found: Scan, held: int, draw: Draw) -> tuple[bytes, ...]:
    """The use of every row in each pass; a weight of 2.5 takes two passes and half of a third."""
    used, weight = _limit(found), found.source.entry.get("weight", 1)
    whole = _uses(found.rows, [(TRAIN, used - held), (EVALUATION, held)], draw)
    rest = round((weight % 1) * (used - held))
    part = _uses(found.rows, [(TRAIN, rest)], draw)
    passes = (whole,) * int(weight) + ((part,) if rest else ())
    if held and weight < 1:
        passes = (bytes(EVALUATION if w == EVALUATION else p for w, p in zip(whole, part, strict=True)),)
    return passes or (part,)


def _uses(count: int, wanted: list[tuple[int, int]], draw: Draw) -> bytes:
    uses, order = bytearray(count), draw(count)
    for use, number in wanted:
        taken, order = order[:number], order[number:]
        for index in taken:
            uses[index] = use
    return bytes(uses)
