"""JSON files → records: one row a line, an array, one object around it, or rows over several lines."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loracook.data.read import json_array
from loracook.data.read.message_keys import ROLE, is_empty
from loracook.data.read.propose import COMPLETIONS, PROMPTS, SPEAKERS
from loracook.data.read.rows import DECODER, EVERY, Place, Record, json_fault, parse_json
from loracook.data.read.text_files import (
    HEAD,
    MAX_PARSED_BYTES,
    TOO_LARGE,
    FileError,
    lines,
    open_text,
    whole,
)
from loracook.machine.limits import growing_at_most

SHALLOW = 500
"""Brackets of a text that is not nested too deeply."""
SURROGATE = re.compile(rb"\\u[dD]")
"""An escape, without which no text has a lone surrogate."""
OF_A_ROW = frozenset(
    (
        "messages",
        "conversations",
        "conversation",
        "tools",
        "functions",
        "prompt",
        "completion",
        "history",
        "segments",
    )
)
"""Columns that may list mappings, so that an object which has one is a row and not around the rows."""
OF_TEXT = frozenset(("text", *PROMPTS, *COMPLETIONS))
"""Columns whose text makes an object a row, whatever else it lists."""
OF_A_LIST = OF_A_ROW - {"prompt", "completion"}


def records(path: Path, name: str, wanted: Iterator[bool] = EVERY) -> Iterator[Record]:
    """The wanted records of a file, whichever way its rows are laid out. Raises FileError."""
    with open_text(path, name) as stream:
        is_array = stream.read(HEAD).lstrip()[:1] == b"["
    values = json_array.entries(path, name) if is_array else _values(path, name)
    if values is None:
        yield from _json_lines(path, name, wanted)
        return
    around: tuple[str, ...] = ()
    if isinstance(values, _Within):
        around, values = values.around, values.rows
    for number, columns in itertools.compress(enumerate(values, 1), wanted):
        yield replace(record(Place(name, number), columns), around=around)


def holds_rows(path: Path, name: str) -> bool:
    """Whether a file of any name holds JSON objects."""
    with open_text(path, name) as stream:
        start = stream.read(HEAD).lstrip()[:1]
    if start not in (b"[", b"{"):
        return False
    try:
        first = next(records(path, name), None)
    except FileError:
        return False
    return first is not None and not first.fault


def parsed(place: Place, content: bytes, columns_of: Callable[[str], object]) -> Record:
    """The record in some bytes, or what is wrong with them."""
    try:
        columns = columns_of(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(place, {}, f"not UTF-8: {error.reason} at byte {error.start + 1}")
    except ValueError as error:
        comma = content.rstrip().endswith((b"},", b"],"))
        return Record(
            place, {}, f"not JSON: {'a comma behind the row; remove it' if comma else _place_in_row(error)}"
        )
    if (
        isinstance(columns, dict)
        and not SURROGATE.search(content)
        and content.count(b"[") + content.count(b"{") < SHALLOW
    ):
        return Record(place, columns)
    return record(place, columns)


def _place_in_row(error: ValueError) -> str:
    """What is wrong with the JSON of a row, and where in it; Python would count lines in it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return str(error)


def record(place: Place, columns: object) -> Record:
    """A record with these columns, or what is wrong with them."""
    if not isinstance(columns, dict):
        return Record(place, {}, "not JSON: a row must be an object with named columns")
    fault = json_fault(columns)
    return Record(place, {} if fault else columns, fault)


def _json_lines(path: Path, name: str, wanted: Iterator[bool]) -> Iterator[Record]:
    written = (numbered for numbered in lines(path, name) if not numbered[1].isspace())
    for number, line in itertools.compress(written, wanted):
        yield parsed(Place(name, number), line, parse_json)


def _values(path: Path, name: str) -> list[Any] | _Within | None:
    """The rows of a file whose values stand over several lines or around rows, None for JSON Lines."""
    written = (line for _, line in lines(path, name) if line.strip())
    first, second = next(written, b""), next(written, b"")
    if not second:
        values = _one_object(first)
        return None if values is None else _rows_within(values, name)
    if not _goes_on(first):
        return None
    try:
        with growing_at_most(MAX_PARSED_BYTES):
            return _rows_within(list(_parsed_values(whole(path, name).decode("utf-8"))), name)
    except MemoryError as error:
        raise FileError(f"'{name}' is {TOO_LARGE}") from error
    except ValueError as error:
        if second.lstrip().startswith(b"{"):  # the first row ends too early
            return None
        raise FileError(f"'{name}' is not JSON: {error}") from error


def _goes_on(line: bytes) -> bool:
    """Whether a line is JSON up to its end, where something is missing."""
    try:
        parse_json(line.decode("utf-8").rstrip())
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc)
    except ValueError:
        return False
    return False


def _one_object(line: bytes) -> list[Any] | None:
    """The only value of a file if it is around rows, the rows if the line has several, None otherwise."""
    try:
        value, *others = values = list(_parsed_values(line.decode("utf-8")))
    except ValueError:
        return None
    around = isinstance(value, dict) and (_lists_of_rows(value) or _is_one_list_a_column(value))
    return values if others or around else None


def _parsed_values(text: str) -> Iterator[Any]:
    """The values that follow each other in a text; raises ValueError."""
    end = 0
    try:
        while written := json_array.NOT_BLANK.search(text, end):
            value, end = DECODER.raw_decode(text, written.start())
            yield value
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@dataclass(frozen=True)
class _Within:
    """The rows that an object lists, and the names of what it has around them."""

    rows: list[Any]
    around: tuple[str, ...]


def _rows_within(values: list[Any], name: str) -> list[Any] | _Within:
    """The rows: the entries of the one list in an object, otherwise the values themselves."""
    if len(values) != 1:
        return values
    (value,) = values
    if isinstance(value, dict) and _is_one_list_a_column(value):
        raise FileError(f"'{name}' has one list for each column; save it as JSON Lines, one row per line")
    found = _lists_of_rows(value) if isinstance(value, dict) else {}
    if len(found) > 1:
        listed = " and ".join(map(repr, itertools.islice(found, 5)))
        raise FileError(f"'{name}' has several lists of rows, {listed}; save each as a file of its own")
    for key, rows in found.items():
        others = (other for other, entry in value.items() if other != key and not is_empty(entry))
        return _Within(rows, tuple(others))
    return values


def _lists_of_rows(value: dict[str, Any]) -> dict[str, list[Any]]:
    """The lists of mappings in an object that is no row itself."""
    texts = {key.strip().lower() for key, entry in value.items() if isinstance(entry, str)}
    if OF_A_ROW & value.keys() or OF_TEXT & texts:
        return {}
    return {name: entries for name, entries in value.items() if _is_list_of_rows(entries)}


def _is_one_list_a_column(value: dict[str, Any]) -> bool:
    """Whether an object has a list of as many texts or numbers under every name, as tables are saved."""
    lists = [entries for entries in value.values() if isinstance(entries, list) and entries]
    if not lists or len(lists) < len(value) or OF_A_LIST & value.keys():
        return False
    scalars = all(not isinstance(entry, dict | list) for entries in lists for entry in entries)
    return scalars and len({*map(len, lists)}) == 1


def _is_list_of_rows(entries: object) -> bool:
    if not isinstance(entries, list) or not entries:
        return False
    return all(isinstance(entry, dict) and not ({*ROLE, *SPEAKERS} & entry.keys()) for entry in entries)
