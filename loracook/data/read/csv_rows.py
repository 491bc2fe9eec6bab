"""CSV lines → one mapping of column names to cells per row."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

MAX_ROW = 64 * 2**20
"""Characters of a row, which may go over any number of lines, and so of a cell."""
SEPARATORS = ";\t,|"
TOLD = re.compile(r"\s*sep=(.)\s*")  # the line that Excel writes before the header


def rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[dict[str, str], str]]:
    """The columns of each row and its fault, "" for none; bytes that are not UTF-8 arrive as surrogates.

    A header without `delimiter` decides which other one there is. Raises csv.Error for an unusable header,
    and for an unbalanced quote that swallows other lines.
    """
    csv.field_size_limit(MAX_ROW)
    stream, opening = iter(lines), list[str]()
    while not "".join(opening).strip() and (line := next(stream, None)) is not None:
        opening.append(line)
    if told := TOLD.fullmatch("".join(opening)):
        delimiter, opening = told[1], ["\n" for _ in opening]
    else:
        delimiter = _delimiter("".join(opening).lstrip("\r\n"), delimiter)
    table = _cells(itertools.chain(opening, stream), delimiter)
    header = _header(next(table, []))
    for cells in table:
        if isinstance(cells, list) and not any(map(str.strip, cells[len(header) :])):
            cells = cells[: len(header)]
        fault = cells if isinstance(cells, str) else _fault(header, cells)
        yield {} if fault else dict(zip(header, cells, strict=True)), fault


def _delimiter(header: str, usual: str) -> str:
    """What separates the columns of a header, in which only one separator can be."""
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in (usual, *SEPARATORS)}
    others = [mark for mark, count in counts.items() if count > 1]
    return others[0] if others and counts[usual] == 1 else usual


def _cells(lines: Iterable[str], delimiter: str) -> Iterator[list[str] | str]:
    """The cells of each non-empty row, or its fault."""
    taken = 0

    def of_one_row() -> Iterator[str]:
        nonlocal taken
        for line in lines:
            taken += len(line)
            if taken > MAX_ROW:
                raise csv.Error("the row is too large")
            yield line

    reader: Any = csv.reader(of_one_row(), delimiter=delimiter, strict=True)
    while True:
        line, taken = reader.line_num + 1, 0
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if reader.line_num > line:
                message = f"the quote opened in line {line} is never closed correctly; close it or double it"
                raise csv.Error(message) from error
            cells = f"not CSV: {error} in line {line}"
        if cells is None:
            return
        if cells:
            yield cells


def _header(cells: list[str] | str) -> list[str]:
    if isinstance(cells, str):
        raise csv.Error(f"the header is {cells}")
    while cells and not cells[-1].strip():
        cells.pop()
    cells = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
    "".join(cells).encode()
    if twice := next((column for column, count in Counter(cells).items() if count > 1), None):
        raise csv.Error(f"the header has column '{twice}' more than once; rename all but one")
    return cells


def _fault(header: list[str], cells: list[str]) -> str:
    if len(cells) != len(header):
        return "not CSV: the row has more or fewer cells than the header"
    for column, cell in zip(header, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            return f"not UTF-8: byte 0x{ord(cell[error.start]) & 0xFF:02x} in column '{column}'"
    return ""
