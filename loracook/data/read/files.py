"""Local data files → records, one at a time, with the file name and row number of each."""

import bz2
import csv
import gzip
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from loracook.data.read import csv_rows
from loracook.data.read.rows import Place, Record, json_fault, parse_json

MAX_LINE_BYTES = 64 * 2**20
MAX_ARRAY_BYTES = 2 * 2**30
MAX_FILE_BYTES = 64 * 2**30
MAX_EXPANSION = 200
"""How many times its size a compressed file may expand to; text expands some five times."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

_READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeError, csv.Error)


class FileError(Exception):
    """A data file that cannot be read at all."""


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


def _open(path: Path) -> IO[bytes]:
    stream: IO[bytes] = OPENERS.get(path.suffix.lower(), open)(path, "rb")
    return stream


def _max_bytes(path: Path) -> int:
    """The most bytes a file may have once decompressed."""
    limit = MAX_LINE_BYTES + MAX_EXPANSION * path.stat().st_size
    return min(MAX_FILE_BYTES, limit) if path.suffix.lower() in OPENERS else MAX_FILE_BYTES


def _lines(path: Path, name: str) -> Iterator[tuple[int, bytes]]:
    bytes_read, limit = 0, _max_bytes(path)
    with _open(path) as stream:
        for number in itertools.count(1):
            line = stream.readline(MAX_LINE_BYTES + 1)
            bytes_read += len(line)
            if len(line) > MAX_LINE_BYTES or bytes_read > limit:
                raise FileError(f"line {number} of '{name}', or the file up to it, exceeds the size limit")
            if not line:
                return
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _json_lines(path: Path, name: str) -> Iterator[Record]:
    for number, line in _lines(path, name):
        if line.strip():
            yield _parsed(Place(name, number), line, parse_json)


def _parsed(place: Place, content: bytes, columns_of: Callable[[str], object]) -> Record:
    try:
        columns = columns_of(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(place, {}, f"not UTF-8: {error.reason} at byte {error.start + 1}")
    except ValueError as error:
        return Record(place, {}, f"not JSON: {error}")
    return _record(place, columns)


def _record(place: Place, columns: object) -> Record:
    if not isinstance(columns, dict):
        return Record(place, {}, "not JSON: a row must be an object with named columns")
    fault = json_fault(columns)
    return Record(place, {} if fault else columns, fault)


def _json(path: Path, name: str) -> Iterator[Record]:
    """An array of rows; a file with one object on each line is read as JSON Lines."""
    with _open(path) as stream:
        start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start != b"[":
        yield from _json_lines(path, name)
        return
    for number, columns in enumerate(_array(path, name), 1):
        yield _record(Place(name, number), columns)


def _array(path: Path, name: str) -> list[object]:
    limit = min(MAX_ARRAY_BYTES, _max_bytes(path))
    with _open(path) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise FileError(f"'{name}' is too large for one JSON array; save it as JSON Lines, one row per line")
    try:
        array: list[object] = parse_json(content.decode("utf-8-sig"))
    except ValueError as error:
        raise FileError(f"'{name}' is not JSON: {error}") from error
    return array


def _csv(path: Path, name: str) -> Iterator[Record]:
    lines = (line.decode("utf-8", "surrogateescape") for _, line in _lines(path, name))
    rows = csv_rows.rows(lines, "\t" if data_suffix(path) == ".tsv" else ",")
    for number, (columns, fault) in enumerate(rows, 1):
        yield Record(Place(name, number), columns, fault)


def _text(path: Path, name: str) -> Iterator[Record]:
    """One row for each paragraph; an empty line ends a paragraph."""
    start, paragraph = 1, b""
    for number, line in itertools.chain(_lines(path, name), [(0, b"")]):
        if line.strip():
            start, paragraph = (start if paragraph else number), paragraph + line
        elif paragraph:
            yield _parsed(Place(name, start), paragraph, lambda text: {"text": text.strip()})
            paragraph = b""


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
        raise FileError(f"'{name}' is not Parquet: {error}") from error


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
