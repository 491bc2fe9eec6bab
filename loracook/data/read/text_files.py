"""Text files as lines of UTF-8, decompressed and within limits."""

import bz2
import codecs
import gzip
import io
import itertools
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

MAX_LINE_BYTES = 64 * 2**20
MOST_VALUES = 2**20
"""Lists and mappings in a line; each takes a hundred times the memory of its two brackets."""
MAX_WHOLE_BYTES = 2 * 2**30
MAX_FILE_BYTES = 64 * 2**30
MAX_PARSED_BYTES = 4 * 2**30
"""What reading a JSON value over several lines may take."""
MAX_EXPANSION = 200
"""How many times its size a compressed file may expand to; text expands some five times."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
TOO_LARGE = "too large for one JSON value; save it as JSON Lines, one row per line"
HEAD = 4096
WIDE = {  # the longer mark first, which begins with the shorter one
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NOT_TEXT = {
    b"\x1f\x8b": "gzip; rename it to end with .gz",
    b"BZh": "bzip2; rename it to end with .bz2",
    b"\xfd7zXZ": "xz; rename it to end with .xz",
    b"\x28\xb5\x2f\xfd": "zstd; decompress it",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or export it as CSV",
    b"PAR1": "Parquet; rename it to end with .parquet",
    b"version https://git-lfs": "a Git LFS pointer; run: git lfs pull",
}


class FileError(Exception):
    """A data file that cannot be read at all."""


def lines(path: Path, name: str) -> Iterator[tuple[int, bytes]]:
    """Every line with its number, in UTF-8 where the file has a byte order mark. Raises FileError."""
    bytes_read, limit = 0, expanded_limit(path)
    with open_text(path, name) as stream:
        for number in itertools.count(1):
            line = stream.readline(MAX_LINE_BYTES + 1)
            bytes_read += len(line)
            if len(line) > MAX_LINE_BYTES or bytes_read > limit:
                raise FileError(f"line {number} of '{name}', or the file up to it, exceeds the size limit")
            if not line:
                return
            check_values(line, f"line {number} of '{name}'")
            yield number, line


def check_values(text: bytes, what: str) -> None:
    """Raise FileError for JSON of more lists and mappings than fit memory once they are read."""
    if len(text) > MOST_VALUES and text.count(b"{") + text.count(b"[") > MOST_VALUES:
        raise FileError(f"{what} has more than {MOST_VALUES:,} brackets, which no row of text has")


def whole(path: Path, name: str) -> bytes:
    """The content of a file that has to be read at once. Raises FileError."""
    limit = min(MAX_WHOLE_BYTES, expanded_limit(path))
    with open_text(path, name) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise FileError(f"'{name}' is {TOO_LARGE}")
    return content


@contextmanager
def open_text(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A text file's bytes, without its byte order mark and in UTF-8 where it has one. Raises FileError."""
    with OPENERS.get(path.suffix.lower(), open)(path, "rb") as stream:
        head = stream.peek(HEAD)[:HEAD]
        fault = next((fault for mark, fault in NOT_TEXT.items() if head.startswith(mark)), "")
        encoding = next((encoding for mark, encoding in WIDE.items() if head.startswith(mark)), "")
        if not encoding and not fault and b"\0" in head:
            fault = "not text, or UTF-16 without a byte order mark; save it as UTF-8"
        if fault:
            raise FileError(f"'{name}' is {fault}")
        if head.startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        yield _as_utf8(stream, encoding, name) if encoding else stream


def _as_utf8(stream: IO[bytes], encoding: str, name: str) -> IO[bytes]:
    content = stream.read(MAX_LINE_BYTES + 1)
    if len(content) > MAX_LINE_BYTES:
        raise FileError(f"'{name}' is too large for {encoding.upper()}; save it as UTF-8")
    return io.BytesIO(content.decode(encoding).encode())


def expanded_limit(path: Path) -> int:
    """The most bytes a file may have once decompressed."""
    limit = MAX_LINE_BYTES + MAX_EXPANSION * path.stat().st_size
    return min(MAX_FILE_BYTES, limit) if path.suffix.lower() in OPENERS else MAX_FILE_BYTES
