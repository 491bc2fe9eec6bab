"""The entries of an array that is a whole JSON file, read one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from loracook.data.read.rows import DECODER
from loracook.data.read.text_files import MAX_LINE_BYTES, FileError, expanded_limit, open_text

CHUNK = 2**20
NOT_BLANK = re.compile(r"\S")


def entries(path: Path, name: str) -> Iterator[Any]:
    """The entries of the array in a file. Raises FileError."""
    with open_text(path, name) as stream:
        window = _Window(TextIOWrapper(stream, "utf-8", newline=""), expanded_limit(path))
        try:
            yield from _entries(window)
        except json.JSONDecodeError as error:
            line = window.line + error.lineno - 1
            raise FileError(f"'{name}' is not JSON: {error.msg}: line {line}") from error
        except RecursionError as error:
            raise FileError(f"'{name}' is not JSON: nested too deeply") from error
        except ValueError as error:
            raise FileError(f"'{name}' is not JSON: {error}") from error


@dataclass
class _Window:
    """The part of a text that is being read: `line` is the number of its first line, `at` the place in it."""

    stream: TextIOWrapper
    limit: int
    text: str = ""
    at: int = 0
    line: int = 1
    read: int = 0

    def mark(self) -> str:
        """The next character that is not blank, "" at the end."""
        while not (found := NOT_BLANK.search(self.text, self.at)):
            self.at = len(self.text)
            if not self.grow():
                return ""
        self.at = found.start()
        return self.text[self.at]

    def value(self) -> Any:
        """The value that starts here; one that ends with the window may go on."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self.grow():
                    raise
            else:
                if end < len(self.text) or not self.grow():
                    self.at = end
                    return value

    def grow(self) -> bool:
        """Read on, as much again as is needed; False at the end. Raises ValueError for too large a value."""
        left = len(self.text) - self.at
        if left > MAX_LINE_BYTES:
            raise ValueError(f"the value in line {self.line} exceeds the size limit")
        if more := self.stream.read(max(CHUNK, left)):
            self.line += self.text.count("\n", 0, self.at)
            self.text, self.at, self.read = self.text[self.at :] + more, 0, self.read + len(more)
        if self.read > self.limit:
            raise ValueError("the file exceeds the size limit")
        return bool(more)

    def expect(self, marks: str) -> str:
        """Pass over one of `marks`, and give it; raises JSONDecodeError for anything else."""
        if (mark := self.mark()) and mark in marks:
            self.at += 1
            return mark
        raise json.JSONDecodeError(f"Expecting {' or '.join(map(repr, marks))}", self.text, self.at)


def _entries(window: _Window) -> Iterator[Any]:
    window.expect("[")
    if window.mark() == "]":
        window.at += 1
    else:
        mark = ","
        while mark == ",":
            window.mark()
            yield window.value()
            mark = window.expect(",]")
    if window.mark():
        raise json.JSONDecodeError("Extra data", window.text, window.at)
