"""What a row is once it is read: a chat, a prompt with its completion, or a text."""

from __future__ import annotations

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
