"""CSV lines → one mapping of column names to cells per row."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

MAX_CELL_BYTES = 64 * 2**20


def rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[dict[str, str], str]]:
    """The columns of each row and its fault, "" for none; bytes that are not UTF-8 arrive as surrogates.

    Raises csv.Error for an unusable header, and for an unbalanced quote that swallows other lines.
    """
    csv.field_size_limit(MAX_CELL_BYTES)
    table = _cells(csv.reader(lines, delimiter=delimiter, strict=True))
    header = _header(next(table, []))
    for cells in table:
        fault = cells if isinstance(cells, str) else _fault(header, cells)
        yield {} if fault else dict(zip(header, cells, strict=True)), fault


def _cells(reader: Any) -> Iterator[list[str] | str]:
    """The cells of each non-empty row, or its fault."""
    while True:
        line = reader.line_num + 1
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
    for column in cells:
        column.encode()
        if cells.count(column) > 1:
            raise csv.Error(f"the header has column '{column}' more than once; rename all but one")
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
