"""Tools and tool calls in any common spelling → as chat templates expect them."""

from collections.abc import Mapping
from typing import Any

from loracook.data.read.message_keys import ARGUMENTS, first
from loracook.data.read.rows import RowError, json_fault, parse_json

Tool = dict[str, Any]
SCHEMAS = ("parameters", "input_schema", "inputSchema")
"""A tool's parameters as OpenAI, Anthropic and the Model Context Protocol call them."""


def tools(value: object) -> tuple[Tool, ...]:
    """Tool descriptions from a list, from a single one, or from the JSON text of either."""
    value = decoded(value, "tools")
    entries = [value] if isinstance(value, dict) else value
    if entries in (None, ""):
        return ()
    if not isinstance(entries, list):
        raise RowError("invalid tool JSON", "'tools' is not a list of mappings")
    if any(isinstance(entry, str) and not entry.lstrip().startswith("{") for entry in entries):
        raise RowError("invalid tool JSON", "'tools' lists names; write a mapping with name and parameters")
    return tuple(_tool(decoded(entry, "tools")) for entry in entries)


def calls(value: object, what: str = "tool_calls") -> list[Tool]:
    """Tool calls from a list, from a single one, or from the JSON text of either, arguments decoded."""
    value = decoded(value, what)
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [_call(decoded(entry, what)) for entry in entries]


def decoded(value: object, what: str) -> Any:
    """The value of a JSON text, None for blank text, and any other value unchanged; raises RowError."""
    if not isinstance(value, str):
        return value
    try:
        parsed = parse_json(value) if value.strip() else None
    except ValueError as error:
        raise RowError("invalid tool JSON", f"{what}: {error}") from error
    if fault := json_fault(parsed):
        raise RowError("invalid tool JSON", f"{what}: {fault}")
    return parsed


def _tool(entry: object) -> Tool:
    if not isinstance(entry, dict):
        raise RowError("invalid tool JSON", "'tools' is not a list of mappings")
    function = entry.get("function", entry)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError("invalid tool JSON", "a tool has no name")
    if function is not entry:
        return entry
    schema = first(function, SCHEMAS)
    renamed = {"parameters" if key == schema else key: value for key, value in function.items()}
    return {"type": "function", "function": {key: renamed[key] for key in renamed if key != "type"}}


def _call(entry: object) -> Tool:
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(function, dict):
        raise RowError("invalid tool JSON", "a tool call has no name")
    if not isinstance(function.get("name"), str):
        raise RowError("invalid tool JSON", "a tool call has no name")
    call_id = {"id": entry["id"]} if isinstance(entry.get("id"), str) else {}
    called = {"name": function["name"], "arguments": _arguments(function)}
    return {"type": "function", **call_id, "function": called}


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    key = first(function, ARGUMENTS)
    arguments = decoded(function[key], key) if key else None
    arguments = decoded(arguments, "arguments")  # some write the JSON text as JSON once more
    if arguments is not None and not isinstance(arguments, dict):
        raise RowError("invalid tool JSON", f"the arguments of '{function['name']}' are not a mapping")
    return arguments or {}
