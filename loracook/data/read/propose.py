"""A format for rows whose columns have other names than the formats expect, and which column is which."""

from collections.abc import Iterable, Mapping
from typing import Any

from loracook.data.read.message_keys import CONTENT

PROMPTS = ("prompt", "question", "query", "instruction", "input", "problem", "request", "user", "human")
COMPLETIONS = ("completion", "answer", "response", "output", "reply", "solution", "assistant", "target")
CONTEXTS = ("context", "input", "passage", "document")
"""Usual names of columns, the likeliest first."""
SPEAKERS = ("speaker", "sender", "author", "who", "participant")
"""Names of who says a message in lists that are one row."""
SEPARATORS = set(",;|\t")


def proposal(columns: Mapping[str, Any]) -> tuple[str, dict[str, str]] | None:
    """The format that a record of these columns can be read in, and `columns:` for it; None if unknown.

    Columns of unusual names are a prompt and its completion where there are two with text, and text where
    there is one.
    """
    return _conversation(columns) or _pair([name for name, value in columns.items() if _is_text(value)])


def _conversation(columns: Mapping[str, Any]) -> tuple[str, dict[str, str]] | None:
    for name, value in columns.items():
        turns = value if isinstance(value, list) else []
        keys = {key for turn in turns if isinstance(turn, dict) for key in turn}
        if {"role", "content"} <= keys:
            return "messages", _renamed({"messages": name})
        if {"from", "value"} <= keys:
            return "sharegpt", _renamed({"conversations": name})
        role, said = _first(SPEAKERS, [*keys]), _first(CONTENT, [*keys])
        if role and said:
            return "messages", _renamed({"messages": name, "role": role, "content": said})
    return None


def _pair(names: list[str]) -> tuple[str, dict[str, str]] | None:
    completion = _first(COMPLETIONS, names)
    prompt = _first(PROMPTS, [name for name in names if name != completion])
    context = _first(CONTEXTS, [name for name in names if name not in (prompt, completion)])
    if prompt and completion and context:
        return "alpaca", _renamed({"instruction": prompt, "input": context, "output": completion})
    if (prompt and completion) or (len(names) == 2 and "system" not in names):
        first, second = (prompt, completion) if prompt and completion else names
        return "prompt_completion", _renamed({"prompt": first, "completion": second})
    # One of a usual name lacks its other half; one with a separator is a table split in the wrong places.
    is_text = len(names) == 1 and not (prompt or completion or SEPARATORS & set(names[0]))
    return ("text", _renamed({"text": names[0]})) if is_text else None


def _first(usual: Iterable[str], names: list[str]) -> str:
    known = {name.strip().lower(): name for name in reversed(names)}
    return next((known[name] for name in usual if name in known), "")


def _renamed(columns: Mapping[str, str]) -> dict[str, str]:
    return {ours: theirs for ours, theirs in columns.items() if ours != theirs}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
