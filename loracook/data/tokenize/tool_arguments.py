"""The arguments of tool calls in the form that a chat template writes: a mapping, or JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from loracook.data.read.rows import Message, RowError

ARGUMENTS = {"snow": "\u2603"}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}}
PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
)


def wants_text(render: Callable[[Sequence[Message]], str]) -> bool:
    """Whether a template fails for arguments in a mapping or writes them as Python does, but not as text."""
    try:
        if str(ARGUMENTS) not in render(PROBE):
            return False
    except RowError:
        pass
    try:
        return json.dumps(ARGUMENTS, ensure_ascii=False) in render(with_text(PROBE))
    except RowError:
        return False


def with_text(messages: Sequence[Message]) -> list[Message]:
    """The messages with the arguments of their tool calls as JSON text."""
    return [
        turn | {"tool_calls": [_with_text(call) for call in turn["tool_calls"]]}
        if turn.get("tool_calls")
        else turn
        for turn in messages
    ]


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return call | {"function": function | {"arguments": arguments}}
