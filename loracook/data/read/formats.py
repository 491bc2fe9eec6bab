"""Formats: the columns of a record → rows; and which format a record is in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loracook.data.read import oasst
from loracook.data.read.messages import conversation, normalised, tools
from loracook.data.read.other_tasks import ANSWERS, other_training
from loracook.data.read.rows import Chat, Pair, Row, RowError, Text, as_text

FIELD = re.compile(r"\{([^{}\"':,\n]+)\}")


@dataclass(frozen=True)
class Shape:
    """How the recipe wants one source read."""

    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)
    best: bool = False


def rows(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    """The rows that one record gives, an error for each that cannot be used; none that `where` leaves out."""
    named = renamed(columns, shape.columns)
    try:
        if shape.format == "oasst" or chosen(columns, shape.where):
            _refuse(named, shape)
            yield from READERS[shape.format](named, shape)
    except RowError as error:
        yield error


def _refuse(columns: Mapping[str, Any], shape: Shape) -> None:
    reason = other_training(columns, shape.where) if shape.format in ANSWERS else ""
    if reason:
        raise RowError("other training", reason)


def renamed(columns: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The columns under our names; inside lists of messages, too."""
    ours = {theirs: our for our, theirs in names.items()}
    taken = {our: columns[theirs] for our, theirs in names.items() if theirs in columns}
    kept = {name: value for name, value in columns.items() if name not in ours and name not in taken}
    return {name: _inner(value, ours) for name, value in (kept | taken).items()}


def chosen(columns: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a record passes the filter."""
    return all(name in columns and oasst.matches(columns, name, wanted) for name, wanted in where.items())


def listed(columns: Mapping[str, Any]) -> str:
    """The names of the columns that are there."""
    return "the columns are " + ", ".join(columns) if columns else "there are no columns"


def filled(template: str, columns: Mapping[str, Any]) -> str:
    """A row template with every `{column}` replaced by that column's text; raises RowError."""
    return FIELD.sub(lambda found: _text(columns, found[1]), template)


def _messages(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    yield Chat(conversation(_column(columns, "messages"), shape.roles), tools(columns.get("tools")))


def _sharegpt(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    spoken, system = _listed(columns, "conversations"), columns.get("system")
    opening = [{"from": "system", "value": system}] if system else []
    yield Chat(conversation(opening + spoken, shape.roles), tools(columns.get("tools")))


def _alpaca(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    asked = "\n\n".join(filter(None, (_text(columns, "instruction"), _text(columns, "input", ""))))
    answer = _spoken(columns, "output")
    past, system = _history(columns), columns.get("system")
    if not past and not system:
        yield Pair(_spoken({"instruction": asked}, "instruction"), answer)
        return
    turns = [{"role": "system", "content": system}] if system else []
    for question, reply in past:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    yield Chat(conversation(turns, shape.roles), opening=len(turns) - 1)


def _history(columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    past = columns.get("history") or []
    if not isinstance(past, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in past):
        raise RowError("no messages", "'history' is no list of questions with their answers")
    return [(question, reply) for question, reply in past]


def _prompt_completion(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    prompt, completion = _column(columns, "prompt"), _column(columns, "completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        turns = conversation(prompt + completion, shape.roles)
        yield Chat(turns, tools(columns.get("tools")), opening=len(normalised(prompt, shape.roles)))
    else:
        yield Pair(_spoken(columns, "prompt"), _spoken(columns, "completion"))


def _plain(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    yield Text(_spoken(columns, "text"))


def _trees(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    over_tree = {
        name: wanted for name, wanted in shape.where.items() if name in columns and "prompt" in columns
    }
    over_messages = {name: wanted for name, wanted in shape.where.items() if name not in over_tree}
    if chosen(columns, over_tree):
        yield from oasst.threads(columns, over_messages, shape.roles, best=shape.best)


def _templated(columns: Mapping[str, Any], shape: Shape) -> Iterator[Row | RowError]:
    if "messages" in shape.template:
        turns = [{**turn, "content": filled(turn["content"], columns)} for turn in shape.template["messages"]]
        yield Chat(conversation(turns, shape.roles))
        return
    prompt = filled(shape.template.get("prompt", ""), columns)
    completion = filled(shape.template["completion"], columns)
    if not completion.strip():
        raise RowError("empty turn", "the completion holds no text")
    yield Pair(prompt, completion) if prompt else Text(completion)


READERS: dict[str, Callable[[Mapping[str, Any], Shape], Iterator[Row | RowError]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "text": _plain,
    "oasst": _trees,
    "columns": _templated,
}


def _inner(value: Any, ours: Mapping[str, str]) -> Any:
    if not ours or not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return value
    return [{ours.get(name, name): part for name, part in message.items()} for message in value]


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if columns.get(name) is None:
        raise RowError("missing column", f"'{name}'; {listed(columns)}")
    return columns[name]


def _listed(columns: Mapping[str, Any], name: str) -> list[Any]:
    value = _column(columns, name)
    if not isinstance(value, list):
        raise RowError("no messages", f"'{name}' is no list")
    return value


def _text(columns: Mapping[str, Any], name: str, otherwise: str | None = None) -> str:
    if columns.get(name) is None and otherwise is not None:
        return otherwise
    return as_text(_column(columns, name), f"column '{name}'")


def _spoken(columns: Mapping[str, Any], name: str) -> str:
    text = _text(columns, name)
    if not text.strip():
        raise RowError("empty turn", f"column '{name}' holds no text")
    return text


def place_holders(row: Row) -> bool:
    """Whether a text still holds a place-holder such as `{{name}}`."""
    return any("{{" in text and _HOLDER.search(text) for text in _texts(row))


_HOLDER = re.compile(r"\{\{\s*[A-Za-z_]\w*\s*\}\}")


def _texts(row: Row) -> list[str]:
    if isinstance(row, Text):
        return [row.text]
    if isinstance(row, Pair):
        return [row.prompt, row.completion]
    return [message["content"] for message in row.messages]
