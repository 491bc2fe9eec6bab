"""Messages in any common spelling → messages as chat templates expect them."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from loracook.data.read import message_keys
from loracook.data.read.message_keys import first, plain_text
from loracook.data.read.rows import Message, RowError, as_text
from loracook.data.read.tool_calls import calls

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "ipython"), "tool"),
    **dict.fromkeys(("tool_response", "tool_result", "function_response", "function-response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call", "function-call"), "function_call"),
}
PART_KINDS = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("reasoning", "thinking"), "reasoning"),
    **dict.fromkeys(("tool_call", "tool_use"), "tool_call"),
}
MOST_MESSAGES = 10_000
"""What a conversation may have: a message a minute for a week, and rendering it takes seconds."""
MEDIA = ("image", "image_url", "input_image", "video", "audio", "input_audio", "file")


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
    """Messages in the spelling of chat templates, in whatever order they are; empty system turns left out."""
    if len(messages) > MOST_MESSAGES:
        most = f"a conversation has at most {MOST_MESSAGES:,}"
        raise RowError("too many messages", f"{len(messages):,}; split it, {most}")
    turns: list[Message] = []
    for message in messages:
        if (text := plain_text(message)).strip() and (role := _role(message, roles)) != "function_call":
            turns.append({"role": role, "content": text})
            continue
        for each in _with_answers_apart(message):
            turn = _message(each, roles)
            if turn["role"] != "system" or turn["content"].strip():
                _append(turns, turn)
    return tuple(turns)


def unread(messages: list[Any], roles: Mapping[str, str]) -> Iterator[str]:
    """The keys of messages that have a value and are not read."""
    for message in messages:
        yield from message_keys.unread(message, _role(message, roles))


def tools_in_system(messages: list[Any], roles: Mapping[str, str]) -> object:
    """The tool descriptions that a system message has as a key of its own, None if there are none."""
    for message in messages:
        key = first(message, message_keys.TOOLS)
        if key and _role(message, roles) == "system":
            return message[key]
    return None


def _message(message: object, roles: Mapping[str, str]) -> Message:
    if not isinstance(message, dict):
        raise RowError("no messages", "a message is not a mapping")
    role = _role(message, roles)
    key = first(message, message_keys.CONTENT)
    if role == "function_call":
        content, reasoning, called = "", "", calls(message[key] if key else None, "function_call")
    else:
        content, reasoning, called = _content(message[key] if key else "", role)
    normalized: Message = {"role": "assistant" if role == "function_call" else role, "content": content}
    if (
        role == "assistant"
        and (key := first(message, message_keys.CALLS))
        and not message_keys.is_empty(message[key])
    ):
        called = called + calls(message[key], key)
    if role in ("assistant", "function_call"):
        reasoning = reasoning or _reasoning(message)
    if not content.strip() and not called and not _may_be_empty(message, role):
        raise RowError("empty message", f"{role} has no text{_others(message)}")
    normalized |= {
        key: as_text(message[key], f"'{key}'") for key in message_keys.COPIED if message.get(key) is not None
    }
    normalized |= {"reasoning_content": reasoning} if reasoning else {}
    normalized |= {"tool_calls": called} if called else {}
    return normalized | _train_flag(message, role)


def _may_be_empty(message: Mapping[str, Any], role: str) -> bool:
    """Whether a message says nothing, rather than under a key that is not read."""
    misspelt = message.keys().isdisjoint(message_keys.CONTENT) and any(message_keys.unread(message, role))
    return role in ("system", "tool") and not misspelt


def _with_answers_apart(message: object) -> list[object]:
    """A message as it is, or the tool answers among its parts as messages, and the rest of it."""
    parts = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(parts, list):
        return [message]
    answers = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_result"]
    if not answers:
        return [message]
    rest = [part for part in parts if part not in answers]
    if parts[: len(answers)] != answers:
        raise RowError("order of parts", "a user's text before a tool's answer; put the answer first")
    apart: list[object] = [
        {"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": part.get("content") or ""}
        for part in answers
    ]
    return apart + ([{**message, "content": rest}] if rest else [])


def _role(message: Mapping[str, Any], roles: Mapping[str, str]) -> str:
    key = first(message, message_keys.ROLE)
    if key is None:
        raise RowError("unknown role", "a message has neither 'role' nor 'from'")
    spelling = str(message[key])
    role = roles.get(spelling) or ROLES.get(spelling) or ROLES.get(spelling.lower())
    if role is None or role not in ROLES:
        advice = "map it to user, assistant, system or tool in dataset.map_roles"
        raise RowError("unknown role", f"'{spelling}'; {advice}")
    return ROLES[role]


def _others(message: Mapping[str, Any]) -> str:
    """What an empty message has instead of text."""
    known = {*message_keys.ROLE, *message_keys.CONTENT, *message_keys.TRAIN}
    names = [key for key, value in message.items() if key not in known and not message_keys.is_empty(value)]
    return f", only {', '.join(map(repr, names))}" if names else ""


def _train_flag(message: Mapping[str, Any], role: str) -> Message:
    """`train: false` if the row masks this assistant message."""
    key = first(message, message_keys.TRAIN)
    if key is None or role not in ("assistant", "function_call"):
        return {}
    if message[key] not in (True, False):
        raise RowError("invalid train flag", f"'{key}' is neither true nor false")
    return {} if message[key] else {"train": False}


def _reasoning(message: Mapping[str, Any]) -> str:
    key = next((key for key in message_keys.REASONING if message.get(key)), None)
    return as_text(message[key], f"'{key}'") if key else ""


def _content(value: Any, role: str) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reasoning and tool calls of a message's content: text, a number, or a list of typed parts.

    What a tool answers may be any JSON value.
    """
    if isinstance(value, str):
        return value, "", []
    parts = value if isinstance(value, list) else [value]
    kinds = {_part_kind(part) for part in parts}
    if None in kinds or (role == "tool" and not kinds & {*PART_KINDS, *MEDIA}):
        return _any_text(value, role), "", []
    texts: dict[str, list[Any]] = {"reasoning": [], "text": [], "tool_call": []}
    _check_order(parts, list(texts))
    for part in parts:
        kind = str(_part_kind(part))
        if kind not in texts:
            supported = "only text, reasoning and tool calls are supported"
            raise RowError("unsupported content", f"type '{kind}'; {supported}")
        texts[kind].append(_part_value(part, kind))
    called = [call for value in texts["tool_call"] for call in calls(value, "tool_call")]
    return "".join(texts["text"]), "".join(texts["reasoning"]), called


def _check_order(parts: list[Any], order: list[str]) -> None:
    """Raise RowError for parts in another order than templates write them in."""
    said = [kind for part in parts if part.get("text") != "" and (kind := _part_kind(part)) in order]
    for kind, following in pairwise(said):
        if order.index(following) < order.index(kind):
            advice = "a chat template writes reasoning, then text, then tool calls"
            raise RowError(
                "order of parts",
                f"{following} behind {'a tool call' if kind == 'tool_call' else kind}; {advice}",
            )


def _any_text(value: object, role: str) -> str:
    """Content that is neither text nor typed parts as text; raises RowError where its text is not certain."""
    where = f"the {role}'s content"
    if role != "tool" and isinstance(value, list):
        raise RowError("not text", f"{where} is a list without types; join its parts to one text")
    if role != "tool" and isinstance(value, dict):
        raise RowError("not text", f"{where} is a mapping; write it as text, such as json.dumps makes")
    if role != "tool":
        return as_text(value, where)
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise RowError("not text", f"{where}: {error}") from error


def _part_kind(part: object) -> str | None:
    """The type of a part of a content, Gemini's having none; None for anything else."""
    if not isinstance(part, dict) or not ("type" in part or set(part) == {"text"}):
        return None
    kind = str(part.get("type", "text"))
    return PART_KINDS.get(kind, kind)


def _part_value(part: Mapping[str, Any], kind: str) -> Any:
    spelling = str(part.get("type", "text"))
    key = first(part, ("value", "text", spelling))
    if kind == "tool_call":
        return part[key] if key else part
    return as_text(part[key] if key else None, f"a part of type '{spelling}'")


def _append(turns: list[Message], turn: Message) -> None:
    """Append a turn; a tool call is joined to the assistant's text right before it."""
    before = turns[-1] if turns and turn.get("tool_calls") and not turn["content"] else {}
    if not before.get("role") == turn["role"] == "assistant":
        turns.append(turn)
        return
    if before.get("train") != turn.get("train"):
        advice = "a tool call and the text before it are one turn; give both the same train flag"
        raise RowError("repeated role", advice)
    if "reasoning_content" in turn:
        raise RowError("order of parts", "reasoning behind the text or the tool call of the same turn")
    called = [*before.get("tool_calls", ()), *turn["tool_calls"]]
    turns[-1] = {**before, **turn, "content": before["content"], "tool_calls": called}
