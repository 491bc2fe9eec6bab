"""Reading a source: its rows that can be used, and what is wrong with the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from loracook.data.read import formats
from loracook.data.read.rows import Place, Record, Row, RowError
from loracook.data.read.sources import Source
from loracook.errors import Problem, RecipeError

EXAMPLES = 5


@dataclass
class Scan:
    """What reading the rows of one source found."""

    source: Source
    rows: int = 0
    records: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    place_holders: list[str] = field(default_factory=list)

    def skip(self, reason: str, where: str) -> None:
        """Count a row that cannot be used."""
        self.skipped.setdefault(reason, []).append(where)

    @property
    def limit(self) -> int:
        """How many of the rows the recipe lets in."""
        return int(min(self.rows, self.source.entry.get("rows", self.rows)))


def scan(source: Source, most: int | None = None) -> Scan:
    """Read all rows of a source, or at `most` so many.

    Raises RecipeError for columns that do not fit, and for bad rows unless the recipe skips them.
    """
    source.check()
    found = Scan(source)
    for place, row in itertools.islice(usable(source, found), most):
        found.rows += 1
        if formats.place_holders(row):
            found.place_holders.append(str(place))
    if found.skipped and fails(source):
        raise RecipeError(_bad_rows(found))
    if not found.rows:
        first = next((f"; {texts[0]}" for texts in found.skipped.values()), "")
        key = "where" if source.entry.get("where") and not first else "path"
        raise source.fail(key, f"no row is left to use{first}")
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


def sound(source: Source) -> Iterator[tuple[Place, Row]]:
    """The rows of a source; raises RecipeError at the first bad one unless the recipe skips them."""
    for record in source.records():
        for row in _rows(record, source):
            if not isinstance(row, RowError):
                yield record.place, row
            elif fails(source):
                raise source.fail("path", f"{record.place}: {row}")


def fails(source: Source) -> bool:
    """Whether a bad row ends the run."""
    return bool(source.recipe["dataset"].get("on_bad_row", "fail") == "fail")


def _rows(record: Record, source: Source) -> Iterator[Row | RowError]:
    if record.fault:
        return iter([RowError(*record.fault.split(": ", 1))])
    return formats.rows(record.columns, source.shape)


def _bad_rows(found: Scan) -> Iterator[Problem]:
    """Problems for the first bad rows and one that counts them all."""
    source, faults = found.source, [text for places in found.skipped.values() for text in places]
    for text in faults[:EXAMPLES]:
        yield source.fail("path", text).problems[0]
    counts = ", ".join(f"{len(places)} x {reason}" for reason, places in found.skipped.items())
    said = f"{len(faults)} of {found.records} rows are bad ({counts}); "
    yield source.fail("path", f"{said}mend them or write dataset.on_bad_row: skip").problems[0]
