"""Local data files → records, one at a time, with the file name and row number of each."""

from __future__ import annotations

import csv
import itertools
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read import csv_rows, json_files
from loracook.data.read.columnar import longest_list, row_converter
from loracook.data.read.rows import EVERY, Place, Record, parse_json
from loracook.data.read.text_files import MAX_LINE_BYTES, OPENERS, FileError, lines
from loracook.machine.limits import growing_at_most
from loracook.units import size

if TYPE_CHECKING:
    import pyarrow.parquet

BATCH_ROWS, BATCH_BYTES = 100, 64 * 2**20
"""How much of a Parquet file is unpacked at a time, by what its metadata claims."""
MAX_UNPACKED_BYTES = 2**30
"""What one row of a Parquet file may take, and those that are unpacked at a time."""
MOST_LISTED = 100_000
"""Mappings in a list of a Parquet row: repeated ones take next to nothing in the file, and memory here."""
_READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeError, csv.Error)


def data_suffix(path: Path) -> str:
    """The suffix that selects the reader, ignoring compression: `.jsonl` for `a.jsonl.gz`."""
    return next((suffix for suffix in map(str.lower, reversed(path.suffixes)) if suffix not in OPENERS), "")


def records(
    path: Path, name: str, suffix: str | None = None, *, wanted: Iterator[bool] = EVERY
) -> Iterator[Record]:
    """The wanted records of a file, called `name` in messages, read according to `suffix` or its own suffix.

    A record that cannot be read carries its fault. Raises FileError if the whole file is unreadable.
    """
    reader = READERS.get(suffix or data_suffix(path))
    if reader is None:
        formats = ", ".join(READERS)
        raise FileError(f"unsupported file type '{name}'; use one of {formats} (optionally .gz, .bz2 or .xz)")
    try:
        yield from reader(path, name, wanted)
    except _READ_ERRORS as error:
        raise FileError(f"cannot read '{name}': {error}") from error


def _csv(path: Path, name: str, wanted: Iterator[bool]) -> Iterator[Record]:
    """The rows below a header; a lone carriage return ends a line, too."""
    split = (part for _, line in lines(path, name) for part in line.splitlines(keepends=True))
    decoded = (line.decode("utf-8", "surrogateescape") for line in split)
    rows = csv_rows.rows(decoded, "\t" if data_suffix(path) == ".tsv" else ",")
    for number, (columns, fault) in itertools.compress(enumerate(rows, 1), wanted):
        yield Record(Place(name, number), columns, fault)


def _any_text(path: Path, name: str, wanted: Iterator[bool]) -> Iterator[Record]:
    """JSON rows where the file holds such, text otherwise."""
    if json_files.holds_rows(path, name):
        yield from json_files.records(path, name, wanted)
        return
    for start, content in itertools.compress(_paragraphs(path, name), wanted):
        yield json_files.parsed(Place(name, start), content, lambda text: {"text": text.strip()})


def _paragraphs(path: Path, name: str) -> Iterator[tuple[int, bytes]]:
    """Each paragraph with the number of its first line; an empty line ends a paragraph."""
    start, paragraph = 1, bytearray()
    for number, line in itertools.chain(lines(path, name), [(0, b"")]):
        if line.strip():
            start = start if paragraph else number
            paragraph += line
            if len(paragraph) > MAX_LINE_BYTES:
                raise FileError(
                    f"the text from line {start} of '{name}' is over {size(MAX_LINE_BYTES)}; add empty lines"
                )
        elif paragraph:
            yield start, bytes(paragraph)
            paragraph.clear()


def _parquet(path: Path, name: str, wanted: Iterator[bool]) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise FileError(f"'{name}' is not Parquet: {error}") from error
    try:
        with file:
            _check_names(file.schema_arrow.names, name)
            plain = row_converter(file.schema_arrow, parse_json)
            for number, columns in itertools.compress(enumerate(_unpacked(file, name), 1), wanted):
                yield Record(Place(name, number), plain(columns))
    except MemoryError as error:
        raise FileError(f"'{name}' unpacks to a row of more than {size(MAX_UNPACKED_BYTES)}") from error
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError, LookupError) as error:
        what = "a value that cannot be read, such as a date after 9999 or of an unknown time zone"
        raise FileError(f"'{name}' has {what}: {error}") from error


def _unpacked(file: pyarrow.parquet.ParquetFile, name: str) -> Iterator[dict[str, Any]]:
    """The rows; raises MemoryError for one that is too large, since a few bytes can stand for any number."""
    done = 0
    with suppress(MemoryError):  # the largest of some rows may be far above what they have on average
        for row in _unpacked_by(file, _rows_at_once(file), name):
            yield row
            done += 1
        return
    yield from itertools.islice(_unpacked_by(file, 1, name), done, None)


def _rows_at_once(file: pyarrow.parquet.ParquetFile) -> int:
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    largest_row = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return max(min(BATCH_BYTES // max(largest_row, 1), BATCH_ROWS), 1)


def _unpacked_by(file: pyarrow.parquet.ParquetFile, count: int, name: str) -> Iterator[dict[str, Any]]:
    """The rows, read so many at a time."""
    batches = file.iter_batches(count, use_threads=False)
    while True:
        with growing_at_most(MAX_UNPACKED_BYTES):
            batch = next(batches, None)
        if batch is None:
            return
        if (listed := max(map(longest_list, batch.columns), default=0)) > MOST_LISTED:
            raise FileError(
                f"'{name}' has a list of {listed:,} mappings; split it, at most {MOST_LISTED:,} fit"
            )
        step = max(BATCH_BYTES // max(batch.nbytes, 1), 1)  # many rows may have the same large value
        for start in range(0, len(batch), step):
            with growing_at_most(MAX_UNPACKED_BYTES):
                rows = batch.slice(start, step).to_pylist()
            yield from rows


def _check_names(columns: list[str], name: str) -> None:
    if twice := next((column for column, count in Counter(columns).items() if count > 1), None):
        raise FileError(f"'{name}' has column '{twice}' more than once; rename all but one")


READERS: dict[str, Callable[[Path, str, Iterator[bool]], Iterator[Record]]] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), json_files.records),
    **dict.fromkeys((".csv", ".tsv"), _csv),
    ".parquet": _parquet,
    **dict.fromkeys((".txt", ".text"), _any_text),
}
