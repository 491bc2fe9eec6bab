"""Local data files → records, one at a time, with the file name and row number of each."""

import csv
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from loracook.data.read import csv_rows, json_files
from loracook.data.read.columnar import row_converter
from loracook.data.read.rows import Place, Record, parse_json
from loracook.data.read.text_files import OPENERS, FileError, lines

_READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeError, csv.Error)


def data_suffix(path: Path) -> str:
    """The suffix that selects the reader, ignoring compression: `.jsonl` for `a.jsonl.gz`."""
    return next((suffix for suffix in map(str.lower, reversed(path.suffixes)) if suffix not in OPENERS), "")


def records(path: Path, name: str, suffix: str | None = None) -> Iterator[Record]:
    """Every record of a file, called `name` in messages, read according to `suffix` or its own suffix.

    A record that cannot be read carries its fault. Raises FileError if the whole file is unreadable.
    """
    reader = READERS.get(suffix or data_suffix(path))
    if reader is None:
        formats = ", ".join(READERS)
        raise FileError(f"unsupported file type '{name}'; use one of {formats} (optionally .gz, .bz2 or .xz)")
    try:
        yield from reader(path, name)
    except _READ_ERRORS as error:
        raise FileError(f"cannot read '{name}': {error}") from error


def _csv(path: Path, name: str) -> Iterator[Record]:
    """The rows below a header; a lone carriage return ends a line, too."""
    split = (part for _, line in lines(path, name) for part in line.splitlines(keepends=True))
    decoded = (line.decode("utf-8", "surrogateescape") for line in split)
    rows = csv_rows.rows(decoded, "\t" if data_suffix(path) == ".tsv" else ",")
    for number, (columns, fault) in enumerate(rows, 1):
        yield Record(Place(name, number), columns, fault)


def _any_text(path: Path, name: str) -> Iterator[Record]:
    """JSON rows where the file holds such, text otherwise."""
    yield from json_files.records(path, name) if json_files.holds_rows(path, name) else _text(path, name)


def _text(path: Path, name: str) -> Iterator[Record]:
    """One row for each paragraph; an empty line ends a paragraph."""
    start, paragraph = 1, b""
    for number, line in itertools.chain(lines(path, name), [(0, b"")]):
        if line.strip():
            start, paragraph = (start if paragraph else number), paragraph + line
        elif paragraph:
            yield json_files.parsed(Place(name, start), paragraph, lambda text: {"text": text.strip()})
            paragraph = b""


def _parquet(path: Path, name: str) -> Iterator[Record]:
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
            batches = file.iter_batches(batch_size=1000)
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, columns in enumerate(rows, 1):
                yield Record(Place(name, number), plain(columns))
    except (pyarrow.ArrowException, ValueError, OverflowError, LookupError) as error:
        what = "a value that cannot be read, such as a date after 9999 or of an unknown time zone"
        raise FileError(f"'{name}' has {what}: {error}") from error


def _check_names(columns: list[str], name: str) -> None:
    for column in columns:
        if columns.count(column) > 1:
            raise FileError(f"'{name}' has column '{column}' more than once; rename all but one")


READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), json_files.records),
    **dict.fromkeys((".csv", ".tsv"), _csv),
    ".parquet": _parquet,
    **dict.fromkeys((".txt", ".text"), _any_text),
}
