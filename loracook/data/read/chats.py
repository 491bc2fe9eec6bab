"""A row's messages, with what it has for them in other columns → a chat."""

from collections.abc import Mapping
from typing import Any

from loracook.data.read.message_keys import TOOLS, plain_text
from loracook.data.read.messages import conversation, normalize, tools_in_system, unread
from loracook.data.read.rows import Chat, RowError
from loracook.data.read.template_kwargs import template_kwargs
from loracook.data.read.tool_calls import Tool, tools

CHAT_COLUMNS = ("system", *TOOLS, "chat_template_kwargs")
"""Columns that make a chat of a prompt and its completion."""


def chat(
    columns: Mapping[str, Any], messages: Any, roles: Mapping[str, str], *, prompt_length: int | None = None
) -> Chat:
    """The chat of these messages, of which the first `prompt_length` are the prompt; raises RowError."""
    if isinstance(messages, str):
        raise RowError("no messages", "the column is text and not JSON; write lists with json.dumps")
    if not isinstance(messages, list):
        raise RowError("no messages", "the column is not a list of messages")
    opening = _opening(columns, messages)
    conversed = conversation(opening + messages, roles)
    unusual = [message for message in messages if not plain_text(message)]
    if prompt_length is not None:
        prompt_length = len(normalize(opening + messages[:prompt_length], roles))
    return Chat(
        conversed,
        _tools(columns, unusual, roles),
        prompt_length,
        template_kwargs(columns.get("chat_template_kwargs")),
        frozenset(unread(unusual, roles)),
    )


def _opening(columns: Mapping[str, Any], messages: list[Any]) -> list[Any]:
    """The system message that a column has, unless the messages begin with it."""
    system = columns.get("system")
    if not system:
        return []
    begins = messages and isinstance(messages[0], dict) and _same(system) in map(_same, messages[0].values())
    return [] if begins else [{"role": "system", "content": system}]


def _same(value: object) -> object:
    """A value without the white space around its text, which makes no other system message."""
    return value.strip() if isinstance(value, str) else value


def _tools(columns: Mapping[str, Any], messages: list[Any], roles: Mapping[str, str]) -> tuple[Tool, ...]:
    """The tools of a row, from a column or its system message; raises RowError for two different lists."""
    places = [*map(columns.get, TOOLS), tools_in_system(messages, roles)]
    if not any(places):
        return ()
    found = [listed for listed in map(tools, filter(None, places)) if listed]
    if any(listed != found[0] for listed in found):
        raise RowError("several lists of tools", "a row has one, in 'tools' or in its system message")
    return found[0] if found else ()
