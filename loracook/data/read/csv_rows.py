"""Lines of CSV → the columns of every row under the names of the head."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Any

WIDEST = 64 * 2**20


def rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[dict[str, str], str]]:
    """The columns of every row and its fault, "" for none; bytes that are no UTF-8 come as surrogates.

    Raises csv.Error for a head that names no columns, and for quotes that take other lines along.
    """
    csv.field_size_limit(WIDEST)
    table = _cells(csv.reader(lines, delimiter=delimiter, strict=True))
    head = _head(next(table, []))
    for cells in table:
        fault = cells if isinstance(cells, str) else _fault(head, cells)
        yield {} if fault else dict(zip(head, cells, strict=True)), fault


def _cells(reader: Any) -> Iterator[list[str] | str]:
    """The cells of every row that is not empty, or its fault."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if reader.line_num > line:
                said = f"the quote in line {line} ends in no line or the wrong one; close it or double it"
                raise csv.Error(said) from error
            cells = f"not CSV: {error} in line {line}"
        if cells is None:
            return
        if cells:
            yield cells


def _head(cells: list[str] | str) -> list[str]:
    if isinstance(cells, str):
        raise csv.Error(f"its head is {cells}")
    for column in cells:
        column.encode()
        if cells.count(column) > 1:
            raise csv.Error(f"there are several columns '{column}'; give each a name of its own")
    return cells


def _fault(head: list[str], cells: list[str]) -> str:
    if len(cells) != len(head):
        return "not CSV: the row has more or fewer cells than the head"
    for column, cell in zip(head, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            return f"not UTF-8: byte 0x{ord(cell[error.start]) & 0xFF:02x} in column '{column}'"
    return ""
