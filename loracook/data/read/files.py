"""Local data files → records, one at a time, with the file and the number of every row."""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from loracook.data.read import csv_rows as tables
from loracook.data.read.rows import Place, Record, fault_of, parsed

LINE_LIMIT = 64 * 2**20
WHOLE_LIMIT = 2 * 2**30
FILE_LIMIT = 64 * 2**30
BOMB = 200
"""How many times its size on disk a compressed file may hold; text compresses some five times."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


_BROKEN = (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeError, csv.Error)


class FileError(Exception):
    """A data file that cannot be read at all."""


def kind(path: Path) -> str:
    """The suffix that says how a file is read, compression left aside: `.jsonl` for `a.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def records(path: Path, name: str, suffix: str | None = None) -> Iterator[Record]:
    """Every row of one file, called `name`, read as its suffix or the given one says; raises FileError.

    A row that cannot be read carries its fault.
    """
    reader = READERS.get(suffix or kind(path))
    if reader is None:
        raise FileError(f"'{name}' is none of {', '.join(READERS)} (.gz, .bz2 and .xz may follow)")
    try:
        yield from reader(path, name)
    except _BROKEN as error:
        raise FileError(f"'{name}' cannot be read: {error}") from error


def _opened(path: Path) -> IO[bytes]:
    opener: Callable[..., Any] = OPENERS.get(path.suffix.lower(), open)
    stream: IO[bytes] = opener(path, "rb")
    return stream


def _most(path: Path) -> int:
    """How many bytes a file may hold, unpacked."""
    packed = path.suffix.lower() in OPENERS
    return min(FILE_LIMIT, LINE_LIMIT + BOMB * path.stat().st_size) if packed else FILE_LIMIT


def _lines(path: Path, name: str) -> Iterator[tuple[int, bytes]]:
    read, most = 0, _most(path)
    with _opened(path) as stream:
        for number in itertools.count(1):
            line = stream.readline(LINE_LIMIT + 1)
            read += len(line)
            if len(line) > LINE_LIMIT or read > most:
                raise FileError(
                    f"line {number} of '{name}' and what is before it is larger than loracook reads"
                )
            if not line:
                return
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _json_lines(path: Path, name: str) -> Iterator[Record]:
    for number, line in _lines(path, name):
        if line.strip():
            yield _decoded(Place(name, number), line)


def _decoded(place: Place, line: bytes) -> Record:
    try:
        columns = parsed(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(place, {}, f"not UTF-8: {error.reason} at byte {error.start + 1}")
    except ValueError as error:
        return Record(place, {}, f"not JSON: {error}")
    return _record(place, columns)


def _record(place: Place, columns: object) -> Record:
    if not isinstance(columns, dict):
        return Record(place, {}, "not JSON: a row is a mapping of columns")
    fault = fault_of(columns)
    return Record(place, {} if fault else columns, fault)


def _json(path: Path, name: str) -> Iterator[Record]:
    """An array of rows; a file with one mapping on each line is read as JSON Lines."""
    with _opened(path) as stream:
        start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start != b"[":
        yield from _json_lines(path, name)
        return
    for number, columns in enumerate(_array(path, name), 1):
        yield _record(Place(name, number), columns)


def _array(path: Path, name: str) -> list[object]:
    with _opened(path) as stream:
        content = stream.read(min(WHOLE_LIMIT, _most(path)) + 1)
    if len(content) > min(WHOLE_LIMIT, _most(path)):
        raise FileError(f"'{name}' is too large an array; save it as JSON Lines, one row a line")
    try:
        found: list[object] = parsed(content.decode("utf-8-sig"))
    except ValueError as error:
        raise FileError(f"'{name}' is not JSON: {error}") from error
    return found


def _csv(path: Path, name: str) -> Iterator[Record]:
    lines = (line.decode("utf-8", "surrogateescape") for _, line in _lines(path, name))
    rows = tables.rows(lines, "\t" if kind(path) == ".tsv" else ",")
    for number, (columns, fault) in enumerate(rows, 1):
        yield Record(Place(name, number), columns, fault)


def _text(path: Path, name: str) -> Iterator[Record]:
    """One row for each paragraph that an empty line ends."""
    start, paragraph = 1, b""
    for number, line in itertools.chain(_lines(path, name), [(0, b"")]):
        if line.strip():
            start, paragraph = (start if paragraph else number), paragraph + line
        elif paragraph:
            yield _paragraph(Place(name, start), paragraph)
            paragraph = b""


def _paragraph(place: Place, paragraph: bytes) -> Record:
    try:
        return Record(place, {"text": paragraph.decode("utf-8").strip()})
    except UnicodeDecodeError as error:
        return Record(place, {}, f"not UTF-8: {error.reason} at byte {error.start + 1}")


def _parquet(path: Path, name: str) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=1000)
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, columns in enumerate(rows, 1):
                yield Record(Place(name, number), columns)
    except pyarrow.ArrowException as error:
        raise FileError(f"'{name}' is not parquet: {error}") from error


READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
    ".text": _text,
}
