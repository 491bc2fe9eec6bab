"""The values that reading yields: raw records, and rows (chat, prompt and completion, or text)."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row comes from; rows and lines count from 1."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"row {self.number} of {self.file}"


@dataclass(frozen=True, slots=True)
class Record:
    """One raw record of the data, or the reason why it cannot be read; `around` are keys around all rows."""

    place: Place
    columns: dict[str, Any]
    fault: str = ""
    around: tuple[str, ...] = ()


EVERY: Iterator[bool] = itertools.repeat(True)
"""Which records to read, one after the other: all of them."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages as chat templates expect them; the first `prompt_length` are the prompt, None if unknown.

    The chat template also gets `template_kwargs`; `unread` are keys of the messages that are not read.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    prompt_length: int | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    unread: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and its completion as text."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, all of it in the loss."""

    text: str


Row: TypeAlias = Chat | Pair | Text


MAX_CHARACTERS = 2**23
"""What a row may have: twice the King James Bible. Tokenizing takes some 200 bytes for each."""


def characters(value: object) -> int:
    """How many characters a row or a part of it has, counting any number as one."""
    total, left = 0, [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            total += len(part)
        elif isinstance(part, dict):
            left += part
            left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part
        elif isinstance(part, Chat):
            left += (*part.messages, *part.tools, part.template_kwargs)
        elif isinstance(part, Pair):
            total += len(part.prompt) + len(part.completion)
        else:
            total += len(part.text) if isinstance(part, Text) else 1
    return total


MOST_COLUMNS = 10_000
"""What a row may have; a table of more is no text."""


def bounded(record: Record) -> Record:
    """The record, or what is wrong with it where it has more columns than a row can."""
    if len(record.columns) <= MOST_COLUMNS:
        return record
    count, most = len(record.columns), f"a row has at most {MOST_COLUMNS:,}"
    return Record(record.place, {}, f"too many columns: {count:,}; remove some, {most}")


class RowError(Exception):
    """A row that cannot be used: `reason` groups such rows, `detail` is about this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)

    def in_words_of(self, names: Mapping[str, str]) -> "RowError":
        """The error with our names of columns replaced by those that the data has."""
        detail = self.detail
        for ours, theirs in names.items():
            detail = detail.replace(f"'{ours}'", f"'{theirs}'")
        return RowError(self.reason, detail)


class TooLongError(RowError):
    """A row of more characters than can be tokenized."""

    def __init__(self, count: int) -> None:
        most = f"a row has at most {MAX_CHARACTERS:,}"
        super().__init__("too long", f"{count:,} characters to tokenize; split it, {most}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The mapping of these keys; raises ValueError for a key that has two different values."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        for key, value in pairs:
            if mapping[key] != value:
                raise ValueError(f"key {key!r} is given twice")
    return mapping


DECODER = json.JSONDecoder(object_pairs_hook=_once_each)


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises ValueError, also for JSON nested too deeply or a key given twice."""
    try:
        return DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_fault(value: object) -> str:
    """Why parsed JSON cannot be written back as UTF-8 text, or "" if it can."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "not UTF-8: a lone surrogate"
    except RecursionError:
        return "not JSON: nested too deeply"
    return ""


def as_text(value: object, where: str) -> str:
    """A string unchanged, a finite number as text; raises RowError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return str(value)
    raise RowError("not text", f"{where} is {_KINDS.get(type(value), f'a {type(value).__name__}')}")


_KINDS: dict[type, str] = {
    bool: "a boolean",
    bytes: "bytes",
    dict: "a mapping",
    float: "a non-finite number",
    list: "a list",
    type(None): "null",
}
