"""What a row is once it is read: a chat, a prompt with its completion, or a text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands; rows and lines count from 1."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"row {self.number} of {self.file}"


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it stands in the data, or the reason why it cannot be read."""

    place: Place
    columns: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages as chat templates take them; `opening` of them are the prompt (None where nothing says so)."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    opening: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and its completion as text."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, trained as a whole."""

    text: str


Row: TypeAlias = Chat | Pair | Text


class RowError(Exception):
    """A row that cannot be used: the reason that is counted, and what was found in this one."""

    def __init__(self, reason: str, found: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {found}" if found else reason)


def parsed(text: str) -> Any:
    """The value that a JSON text holds; raises ValueError, for what is nested too deep as well."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def fault_of(value: object) -> str:
    """What keeps parsed JSON from being written as text again, "" for nothing."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "not UTF-8: a lone surrogate"
    except RecursionError:
        return "not JSON: it is nested too deep"
    return ""


def as_text(value: object, where: str) -> str:
    """Text as it stands, a number as it is written; raises RowError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return str(value)
    raise RowError("not text", f"{where} holds {_KINDS.get(type(value), f'a {type(value).__name__}')}")


_KINDS: dict[type, str] = {
    bool: "true or false",
    bytes: "bytes",
    dict: "a mapping",
    float: "a number that is not finite",
    list: "a list",
    type(None): "nothing",
}
