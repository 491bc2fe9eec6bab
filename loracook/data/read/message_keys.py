"""Which keys of a message are read, and what messages have beside them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

ROLE = ("role", "from")
CONTENT = ("content", "value", "text", "parts")
REASONING = ("reasoning_content", "reasoning", "thinking")
TRAIN = ("train", "training", "weight")
CALLS = ("tool_calls", "function_call")
TOOLS = ("tools", "functions")
COPIED = ("name", "tool_call_id")
ALTERNATIVES = (ROLE, CONTENT, REASONING, TRAIN, CALLS, TOOLS)
"""Keys with one meaning: the first one that has a value is read."""
EVERY_ROLE = frozenset((*ROLE, *CONTENT, *COPIED))
BY_ROLE = {
    "system": EVERY_ROLE | set(TOOLS),
    "assistant": EVERY_ROLE | {*REASONING, *TRAIN, *CALLS},
    "function_call": EVERY_ROLE | {*REASONING, *TRAIN},
}
OF_SOME_ROLE = frozenset().union(*BY_ROLE.values())
PLAIN = (("role", "content"), ("from", "value"))
RESULT = ("tool_use_id", "content")
"""What an answer of a tool has that is a part of the user's turn, as Anthropic writes them."""
PART = frozenset(
    ("type", "text", "value", "reasoning", "thinking", "tool_call", "id", "name", "input", *RESULT)
)
ARGUMENTS = ("arguments", "parameters", "input", "args")
FUNCTION = frozenset(("name", *ARGUMENTS))
CALL = FUNCTION | {"type", "id", "function"}
HOLDERS = (str, list, dict)
"""Types whose empty value says nothing."""


def first(mapping: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    """The first of the keys that says something, else the first that is not null, None if all are."""
    empty = None
    for key in keys:
        if not is_empty(value := mapping.get(key)):
            return key
        if value is not None and empty is None:
            empty = key
    return empty


def is_empty(value: object) -> bool:
    """Whether a value says nothing, so that passing over it loses nothing."""
    return value is None or (isinstance(value, HOLDERS) and not value)


def plain_text(message: object) -> str:
    """The text of a message that has a role and text and nothing else, as nearly all have; "" of others."""
    if isinstance(message, dict) and len(message) == 2:
        for role, content in PLAIN:
            if role in message and isinstance(text := message.get(content), str):
                return text
    return ""


def unread(message: Mapping[str, Any], role: str) -> Iterator[str]:
    """The keys of a message in this role that have a value and are not read; inner ones with a dot."""
    known = BY_ROLE.get(role, EVERY_ROLE)
    for key in _others(message, known):
        if key not in TRAIN or message[key]:  # only answers are trained in any case
            yield f"{key} of {role}" if key in OF_SOME_ROLE else key
    for keys in ALTERNATIVES:
        values = {key: message[key] for key in keys if key in known and not is_empty(message.get(key))}
        yield from (key for key, value in values.items() if value != next(iter(values.values())))
    content = message[said] if (said := first(message, CONTENT)) else None
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            yield from _others(part, PART, "content.")
    name = first(message, CALLS)
    calls = message[name] if name else None
    for call in calls if isinstance(calls, list) else (calls,):
        if isinstance(call, dict):
            yield from _others(call, CALL, f"{name}.")
            function = call.get("function")
            yield from _others(function, FUNCTION, "function.") if isinstance(function, dict) else ()


def _others(mapping: Mapping[str, Any], known: Iterable[str], before: str = "") -> Iterator[str]:
    return (before + str(key) for key, value in mapping.items() if key not in known and not is_empty(value))
