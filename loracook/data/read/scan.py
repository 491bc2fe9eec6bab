"""One pass over a source: how many usable rows it has, and what is wrong with the others."""

from __future__ import annotations

import itertools
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from loracook.data.read import formats
from loracook.data.read.message_keys import is_empty
from loracook.data.read.rows import Chat, Pair, Place, Record, Row, RowError, Text
from loracook.data.read.sources import Source
from loracook.errors import Problem, RecipeError
from loracook.progress import Progress

EXAMPLES = 5
REPORT_EVERY = 1000
PLACEHOLDER = re.compile(r"\{\{\s*[A-Za-z_]\w*\s*\}\}")


@dataclass
class Scan:
    """The counts of one pass over a source; skipped rows by their reason."""

    source: Source
    rows: int = 0
    rows_in: array[int] = field(default_factory=partial(array, "I"))
    """How many usable rows each record has."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    placeholders: list[str] = field(default_factory=list)
    unread_columns: Counter[str] = field(default_factory=Counter)
    unread_keys: Counter[str] = field(default_factory=Counter)
    unread_around: Counter[str] = field(default_factory=Counter)
    template_kwargs: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str, where: str) -> None:
        """Count an unusable row."""
        self.skipped.setdefault(reason, []).append(where)

    def count_unread(self, record: Record, row: Row) -> None:
        """Count what a row and its messages have beside what is read, and its chat template's arguments."""
        if beside := record.columns.keys() - self.source.columns_read:
            self.unread_columns.update(name for name in beside if not is_empty(record.columns[name]))
        if record.around:
            self.unread_around.update(record.around)
        if isinstance(row, Chat) and (row.unread or row.template_kwargs):
            self.unread_keys.update(row.unread)
            self.template_kwargs.update(row.template_kwargs.keys())

    @property
    def records(self) -> int:
        """How many records were read."""
        return len(self.rows_in)

    @property
    def limit(self) -> int:
        """How many of the rows the recipe uses at most."""
        return int(min(self.rows, self.source.entry.get("rows", self.rows)))


def scan(source: Source, progress: Progress, limit: int | None = None) -> Scan:
    """Read all rows of a source, or the first `limit`.

    Raises RecipeError for columns that do not fit, and for bad rows unless the recipe skips them.
    """
    source.check_columns()
    result = Scan(source)
    for place, row in itertools.islice(_counted_rows(source, result), limit):
        result.rows += 1
        if has_placeholder(row):
            result.placeholders.append(str(place))
        if result.rows % REPORT_EVERY == 0:
            progress.advance(result.rows, 0, f"rows of {source.entry['path']} read")
    if result.skipped and fails_on_bad_rows(source):
        raise RecipeError(_bad_rows(result))
    if not result.rows:
        first = next((f"; {texts[0]}" for texts in result.skipped.values()), "")
        key = "where" if source.entry.get("where") and not first else "path"
        raise source.fail(key, f"no usable rows{first}")
    return result


def usable_rows(source: Source, wanted: Iterator[bool]) -> Iterator[tuple[Place, Row]]:
    """The usable rows of the wanted records of a source; the others are skipped."""
    for record in source.records(wanted):
        for row in _rows(record, source):
            if not isinstance(row, RowError):
                yield record.place, row


def _counted_rows(source: Source, counts: Scan) -> Iterator[tuple[Place, Row]]:
    """The usable rows of a source, which are counted like those that are skipped."""
    for record in source.records():
        counts.rows_in.append(0)
        for row in _rows(record, source):
            if isinstance(row, RowError):
                counts.skip(row.reason, f"{record.place}: {row}")
                continue
            counts.rows_in[-1] += 1
            counts.count_unread(record, row)
            yield record.place, row


def checked_rows(source: Source) -> Iterator[tuple[Place, Row]]:
    """The rows of a source; raises RecipeError at the first bad one unless the recipe skips them."""
    for record in source.records():
        for row in _rows(record, source):
            if not isinstance(row, RowError):
                yield record.place, row
            elif fails_on_bad_rows(source):
                raise source.fail("path", f"{record.place}: {row}")


def fails_on_bad_rows(source: Source) -> bool:
    """Whether a bad row ends the run."""
    return bool(source.recipe["dataset"]["on_bad_row"] == "fail")


def has_placeholder(row: Row) -> bool:
    """Whether a text of the row contains an unfilled placeholder such as `{{name}}`."""
    if isinstance(row, Text):
        texts = [row.text]
    elif isinstance(row, Pair):
        texts = [row.prompt, row.completion]
    else:
        texts = [message["content"] for message in row.messages]
    return any("{" in text and PLACEHOLDER.search(text) for text in texts)


def _rows(record: Record, source: Source) -> Iterator[Row | RowError]:
    if record.fault:
        return iter([RowError(*record.fault.split(": ", 1))])
    return formats.rows(record.columns, source.options)


def _bad_rows(result: Scan) -> Iterator[Problem]:
    """Problems for the first bad rows and one that counts them all."""
    source, faults = result.source, [text for texts in result.skipped.values() for text in texts]
    for text in faults[:EXAMPLES]:
        yield source.fail("path", text).problems[0]
    counts = ", ".join(f"{len(texts)} x {reason}" for reason, texts in result.skipped.items())
    summary = f"{len(faults)} of {result.records} rows are bad ({counts})"
    yield source.fail("path", f"{summary}; fix them or set dataset.on_bad_row: skip").problems[0]
