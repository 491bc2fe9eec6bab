"""Turns in a column: a list of messages, also as JSON text or as one list for each key."""

import re
from collections.abc import Mapping
from typing import Any

from loracook.data.read.message_keys import ROLE
from loracook.data.read.rows import parse_json

TURNS = ("messages", "conversations", "conversation", "prompt", "completion", "history")
"""Columns whose value may be a list."""
_BEGINNING = re.compile(r"""\s*\[\s*\{\s*(?:'(?:role|content|from|value)'|"(?:role|from)")\s*:""")
SAID = {"content", "value", "tool_calls"}


def as_turns(name: str, value: Any) -> Any:
    """The list of messages that a column stands for, any other value unchanged."""
    if isinstance(value, list):
        return value
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        parsed = _parsed(value)
        either = name in ("prompt", "completion")  # which may as well be text that looks like JSON
        return value if isinstance(parsed, str) or (either and not _are_turns(parsed)) else parsed
    if isinstance(value, Mapping) and is_turn(value):
        return _rows(value) or [dict(value)]
    return value


def is_turn(value: object) -> bool:
    """Whether a value is a message: it has a role and content."""
    return isinstance(value, Mapping) and any(key in value for key in ROLE) and bool(value.keys() & SAID)


def begins_like_turns(value: object) -> bool:
    """Whether a value is text that begins like a list of messages, as Python or JSON write one."""
    return isinstance(value, str) and bool(_BEGINNING.match(value))


def _are_turns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def _rows(lists: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of lists that have one entry for each of them, as older versions of datasets keep them."""
    lengths = {len(values) if isinstance(values, list) else -1 for values in lists.values()}
    if len(lengths) != 1 or -1 in lengths:
        return []
    entries = zip(*lists.values(), strict=True)
    return [{k: v for k, v in zip(lists, entry, strict=True) if v is not None} for entry in entries]
