"""Messages in any common spelling → messages as chat templates expect them."""

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from loracook.data.read.rows import Message, RowError, as_text, json_fault, parse_json

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "ipython"), "tool"),
    "function_call": "function_call",
}
COPIED_KEYS = ("name", "tool_call_id")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
TRAIN_KEYS = ("train", "training", "weight")


def conversation(messages: object, roles: Mapping[str, str]) -> tuple[Message, ...]:
    """The normalized messages of a row; raises RowError if they, or their order, are no conversation."""
    if not isinstance(messages, list) or not messages:
        raise RowError("no messages", "the column is not a list of messages")
    normalized = normalize(messages, roles)
    order = [message["role"] for message in normalized]
    for required in ("assistant", "user"):
        if required not in order:
            raise RowError(f"no {required} message", "the roles are " + ", ".join(dict.fromkeys(order)))
    for number, (role, following) in enumerate(pairwise(order), 1):
        if role == following != "tool":
            raise RowError("repeated role", f"messages {number} and {number + 1} are both {role}")
    return normalized


def normalize(messages: list[Any], roles: Mapping[str, str]) -> tuple[Message, ...]:
    """Messages in the spelling of chat templates, in whatever order they are."""
    return _merge_calls(_message(message, roles) for message in messages)


def tools(value: object) -> tuple[dict[str, Any], ...]:
    """Tool descriptions, from a list or from JSON text."""
    entries = _decode(value, "tools") if isinstance(value, str) else value
    if entries in (None, ""):
        return ()
    if not isinstance(entries, list) or not all(isinstance(tool, dict) for tool in entries):
        raise RowError("invalid tool JSON", "'tools' is not a list of mappings")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in entries)


def _message(message: object, roles: Mapping[str, str]) -> Message:
    if not isinstance(message, dict):
        raise RowError("no messages", "a message is not a mapping")
    role = _role(message, roles)
    content, reasoning, calls = _content(message.get("content", message.get("value")))
    normalized: Message = {"role": role, "content": content}
    calls += _calls(message.get("tool_calls"))
    if role == "function_call":
        normalized, calls = {"role": "assistant", "content": ""}, _calls(_decode(content, "function_call"))
    reasoning = reasoning or _reasoning(message)
    if not normalized["content"].strip() and not calls:
        raise RowError("empty message", f"{role} has no text")
    normalized |= {
        key: as_text(message[key], f"'{key}'") for key in COPIED_KEYS if message.get(key) is not None
    }
    normalized |= {"reasoning_content": reasoning} if reasoning else {}
    normalized |= {"tool_calls": calls} if calls else {}
    return normalized | _train_flag(message, role)


def _role(message: Mapping[str, Any], roles: Mapping[str, str]) -> str:
    spelling = message.get("role", message.get("from"))
    if spelling is None:
        raise RowError("unknown role", "a message has neither 'role' nor 'from'")
    role = roles.get(str(spelling), ROLES.get(str(spelling)))
    if role not in ROLES:
        advice = "map it to user, assistant, system or tool in dataset.map_roles"
        raise RowError("unknown role", f"'{spelling}'; {advice}")
    return ROLES[role]


def _train_flag(message: Mapping[str, Any], role: str) -> Message:
    """`train: false` if the row masks this assistant message."""
    key = next((key for key in TRAIN_KEYS if message.get(key) is not None), None)
    if key is None or role not in ("assistant", "function_call"):
        return {}
    if message[key] not in (True, False):
        raise RowError("invalid train flag", f"'{key}' is neither true nor false")
    return {} if message[key] else {"train": False}


def _reasoning(message: Mapping[str, Any]) -> str:
    key = next((key for key in REASONING_KEYS if message.get(key)), None)
    return as_text(message[key], f"'{key}'") if key else ""


def _content(value: object) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reasoning and tool calls of a message's content, which is text or a list of typed parts."""
    if value is None or isinstance(value, str):
        return value or "", "", []
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise RowError("empty message", "the content is neither text nor a list of parts")
    texts: dict[str, list[str]] = {"text": [], "reasoning": [], "tool_call": []}
    for part in value:
        kind = "reasoning" if part.get("type") == "thinking" else str(part.get("type"))
        if kind not in texts:
            supported = "only text, reasoning and tool calls are supported"
            raise RowError("unsupported content", f"type '{kind}'; {supported}")
        texts[kind].append(_part_text(part))
    calls = [call for text in texts["tool_call"] for call in _calls(_decode(text, "tool_call"))]
    return "".join(texts["text"]), "".join(texts["reasoning"]), calls


def _part_text(part: Mapping[str, Any]) -> str:
    kind = str(part["type"])
    value = next((part[key] for key in ("value", "text", kind) if part.get(key) is not None), None)
    if kind == "tool_call" and isinstance(value, dict | list):
        return json.dumps(value)
    return as_text(value, f"a part of type '{kind}'")


def _calls(value: object) -> list[dict[str, Any]]:
    """Tool calls as templates expect them, arguments decoded; raises RowError for invalid ones."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [_call(entry) for entry in entries]


def _call(entry: object) -> dict[str, Any]:
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError("invalid tool JSON", "a tool call has no name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = _decode(arguments, "arguments")
    call_id = {"id": entry["id"]} if isinstance(entry, dict) and isinstance(entry.get("id"), str) else {}
    called = {"name": function["name"], "arguments": arguments or {}}
    return {"type": "function", **call_id, "function": called}


def _decode(text: str, what: str) -> Any:
    try:
        value = parse_json(text) if text.strip() else None
    except ValueError as error:
        raise RowError("invalid tool JSON", f"{what}: {error}") from error
    if fault := json_fault(value):
        raise RowError("invalid tool JSON", f"{what}: {fault}")
    return value


def _merge_calls(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Messages in which a tool call is joined to the assistant's text right before it."""
    merged: list[Message] = []
    for message in messages:
        before = merged[-1] if merged else {}
        both_assistant = before.get("role") == message["role"] == "assistant"
        if not (both_assistant and message.get("tool_calls") and not message["content"]):
            merged.append(message)
            continue
        if before.get("train") != message.get("train"):
            advice = "a tool call and the text before it are one turn; give both the same train flag"
            raise RowError("repeated role", advice)
        calls = [*before.get("tool_calls", ()), *message["tool_calls"]]
        merged[-1] = {**before, **message, "content": before["content"], "tool_calls": calls}
    return tuple(merged)
