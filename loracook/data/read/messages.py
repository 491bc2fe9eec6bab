"""Messages in any of their spellings → messages as chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from loracook.data.read.rows import Message, RowError, as_text, fault_of, parsed

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "ipython": "tool",
    "function_call": "function_call",
}
KEPT = ("name", "tool_call_id")
REASONING = ("reasoning_content", "reasoning", "thinking")
FLAGS = ("train", "training", "weight")


def conversation(messages: object, roles: Mapping[str, str]) -> tuple[Message, ...]:
    """The checked messages of one row; raises RowError where they make no conversation."""
    if not isinstance(messages, list) or not messages:
        raise RowError("no messages", "the column holds no list of messages")
    turns = normalised(messages, roles)
    check(turns)
    return turns


def normalised(messages: list[Any], roles: Mapping[str, str]) -> tuple[Message, ...]:
    """Messages in the one spelling that templates know, in whatever order they stand."""
    return _merged(_turn(message, roles) for message in messages)


def tools(value: object) -> tuple[dict[str, Any], ...]:
    """Tool descriptions, given as a list or as JSON text."""
    found = _decoded(value, "tools") if isinstance(value, str) else value
    if found in (None, ""):
        return ()
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RowError("invalid tool JSON", "tools is no list of mappings")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in found)


def check(turns: tuple[Message, ...]) -> None:
    """Raise RowError for an order of turns that no chat has."""
    spoken = [turn["role"] for turn in turns]
    if "assistant" not in spoken:
        raise RowError("no assistant turn", "roles are " + ", ".join(dict.fromkeys(spoken)))
    if "user" not in spoken:
        raise RowError("no user turn", "roles are " + ", ".join(dict.fromkeys(spoken)))
    for number, (role, following) in enumerate(pairwise(spoken), 1):
        if role == following != "tool":
            raise RowError("two turns of one role", f"turns {number} and {number + 1} are both {role}")


def _turn(message: object, roles: Mapping[str, str]) -> Message:
    if not isinstance(message, dict):
        raise RowError("no messages", "a message is no mapping")
    role = _role(message, roles)
    content, reasoning, calls = _content(message.get("content", message.get("value")))
    turn: Message = {"role": role, "content": content}
    calls += _calls(message.get("tool_calls"))
    if role == "function_call":
        turn, calls = {"role": "assistant", "content": ""}, _calls(_decoded(content, "function_call"))
    reasoning = reasoning or _reasoning(message)
    if not turn["content"].strip() and not calls:
        raise RowError("empty turn", f"a turn of {role} holds no text")
    turn |= {key: as_text(message[key], f"'{key}'") for key in KEPT if message.get(key) is not None}
    turn |= {"reasoning_content": reasoning} if reasoning else {}
    turn |= {"tool_calls": calls} if calls else {}
    return turn | _flag(message, role)


def _role(message: Mapping[str, Any], roles: Mapping[str, str]) -> str:
    spelt = message.get("role", message.get("from"))
    if spelt is None:
        raise RowError("unknown role", "a message has neither 'role' nor 'from'")
    found = roles.get(str(spelt), ROLES.get(str(spelt)))
    if found not in ROLES:
        raise RowError(
            "unknown role", f"'{spelt}'; dataset.map_roles can name it user, assistant, system or tool"
        )
    return ROLES[found]


def _flag(message: Mapping[str, Any], role: str) -> Message:
    """`train: false` where the row says that this turn of the assistant is not to be learned."""
    if role not in ("assistant", "function_call"):
        return {}
    named = next((key for key in FLAGS if message.get(key) is not None), None)
    if named is None:
        return {}
    if message[named] not in (True, False):
        raise RowError("no flag", f"'{named}' is neither true nor false")
    return {} if message[named] else {"train": False}


def _reasoning(message: Mapping[str, Any]) -> str:
    named = next((key for key in REASONING if message.get(key)), None)
    return as_text(message[named], f"'{named}'") if named else ""


def _content(value: object) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reasoning and tool calls of a message's content, which is text or a list of typed parts."""
    if value is None or isinstance(value, str):
        return value or "", "", []
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise RowError("empty turn", "content is neither text nor a list of parts")
    found: dict[str, list[str]] = {"text": [], "reasoning": [], "tool_call": []}
    for part in value:
        kind = "reasoning" if part.get("type") == "thinking" else str(part.get("type"))
        if kind not in found:
            raise RowError(
                "unknown part", f"content of type '{kind}'; loracook trains text, reasoning and tool calls"
            )
        found[kind].append(_part_text(part))
    calls = [call for text in found["tool_call"] for call in _calls(_decoded(text, "tool_call"))]
    return "".join(found["text"]), "".join(found["reasoning"]), calls


def _part_text(part: Mapping[str, Any]) -> str:
    kind = str(part["type"])
    value = next((part[key] for key in ("value", "text", kind) if part.get(key) is not None), None)
    if kind == "tool_call" and isinstance(value, dict | list):
        return json.dumps(value)
    return as_text(value, f"a part of type '{kind}'")


def _calls(value: object) -> list[dict[str, Any]]:
    """Tool calls as templates take them, arguments decoded; raises RowError for what is none."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [_call(entry) for entry in entries]


def _call(entry: object) -> dict[str, Any]:
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError("invalid tool JSON", "a tool call needs a name")
    given = function.get("arguments", {})
    arguments = _decoded(given, "arguments") if isinstance(given, str) else given
    known = {"id": entry["id"]} if isinstance(entry, dict) and isinstance(entry.get("id"), str) else {}
    return {"type": "function", **known, "function": {"name": function["name"], "arguments": arguments or {}}}


def _decoded(text: str, what: str) -> Any:
    try:
        found = parsed(text) if text.strip() else None
    except ValueError as error:
        raise RowError("invalid tool JSON", f"{what}: {error}") from error
    if fault := fault_of(found):
        raise RowError("invalid tool JSON", f"{what}: {fault}")
    return found


_TORN = "a tool call and the words before it are not marked alike; write train in both"


def _merged(turns: Iterable[Message]) -> tuple[Message, ...]:
    """Turns with a tool call joined to the words that the assistant said just before it."""
    merged: list[Message] = []
    for turn in turns:
        before = merged[-1] if merged else {}
        if (
            before.get("role") == turn["role"] == "assistant"
            and turn.get("tool_calls")
            and not turn["content"]
        ):
            if before.get("train") != turn.get("train"):
                raise RowError("two turns of one role", _TORN)
            calls = [*before.get("tool_calls", ()), *turn["tool_calls"]]
            merged[-1] = {**before, **turn, "content": before["content"], "tool_calls": calls}
        else:
            merged.append(turn)
    return tuple(merged)
