"""Which format the rows of a source are in, and whether their columns fit it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from loracook.data.read import oasst
from loracook.data.read.formats import FIELD, Shape, listed, renamed
from loracook.data.read.other_tasks import ANSWERS, other_training
from loracook.data.read.rows import Message


class FormatError(Exception):
    """The columns of a source do not fit its format; `key` is the key of the source to look at."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


def refuse(columns: Mapping[str, Any], shape: Shape) -> None:
    """Raise FormatError for a record that is there for another kind of training."""
    if reason := other_training(renamed(columns, shape.columns), shape.where):
        raise FormatError("format", f"{reason}; {listed(columns)}")


def check(columns: Mapping[str, Any], shape: Shape) -> None:
    """Raise FormatError when a record lacks a column that the recipe names or the format needs."""
    if shape.format in ANSWERS:
        refuse(columns, shape)
    there = set(columns)
    inner = set(columns["prompt"]) if isinstance(columns.get("prompt"), dict) else set()
    for name in shape.where:
        if name not in there | inner:
            raise FormatError("where", f"no column '{name}'; {listed(columns)}")
        if isinstance(columns.get(name), str) and not _has_text(shape.where[name]):
            raise FormatError("where", f"column '{name}' holds text; write its value in quotes")
    for ours, theirs in shape.columns.items():
        if theirs not in there | _message_keys(columns):
            raise FormatError("columns", f"no column '{theirs}' to read as '{ours}'; {listed(columns)}")
    named = renamed(columns, shape.columns)
    for name in _needed(named, shape):
        if name in columns and name not in named:
            ours = next(our for our, theirs in shape.columns.items() if theirs == name)
            raise FormatError("columns", f"'{name}' is read as '{ours}', and {shape.format} needs '{name}'")
        if name not in named:
            raise FormatError("format", f"{shape.format} needs a column '{name}'; {listed(columns)}")


def fits(columns: Mapping[str, Any], shape: Shape) -> bool:
    """Whether a record is as the recipe and its format say."""
    try:
        format = guess(columns, shape)[0] if shape.format == "auto" else shape.format
        check(columns, replace(shape, format=format))
    except FormatError:
        return False
    return True


def guess(columns: Mapping[str, Any], shape: Shape) -> tuple[str, str]:
    """The one format that a record fits and why; raises FormatError for none or several."""
    named = renamed(columns, shape.columns)
    if set(shape.template) & {"prompt", "completion", "messages"}:
        return "columns", "the recipe has a row template"
    refuse(columns, shape)
    fitting = {name: reason for name, fits, reason in _FITS if fits(named)}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    if fitting:
        raise FormatError("format", f"the rows fit {' and '.join(fitting)}; write which one to read")
    raise FormatError(
        "format", f"no format fits; write columns, a row template in template, or format; {listed(columns)}"
    )


def _has_text(wanted: object) -> bool:
    return any(isinstance(value, str) for value in (wanted if isinstance(wanted, list) else [wanted]))


NEEDS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}


def _needed(columns: Mapping[str, Any], shape: Shape) -> tuple[str, ...]:
    if shape.format == "columns":
        return tuple(FIELD.findall(" ".join(_template_texts(shape.template))))
    if shape.format == "oasst":
        return ("prompt",) if "prompt" in columns else ("text", "role")
    return NEEDS[shape.format]


def _template_texts(template: Mapping[str, Any]) -> Iterator[str]:
    yield from (template[key] for key in ("prompt", "completion") if key in template)
    yield from (turn["content"] for turn in template.get("messages", ()))


def _list_of(columns: Mapping[str, Any], name: str, key: str) -> bool:
    value = columns.get(name)
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and key in value[0]


_FITS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], str], ...] = (
    (
        "messages",
        lambda row: _list_of(row, "messages", "role"),
        "a column 'messages' lists turns with a role",
    ),
    (
        "sharegpt",
        lambda row: _list_of(row, "conversations", "from"),
        "a column 'conversations' lists from and value",
    ),
    (
        "alpaca",
        lambda row: {"instruction", "output"} <= set(row),
        "there are columns 'instruction' and 'output'",
    ),
    (
        "prompt_completion",
        lambda row: {"prompt", "completion"} <= set(row),
        "there are columns 'prompt' and 'completion'",
    ),
    ("oasst", oasst.is_oasst, "the columns are those of OpenAssistant's messages"),
    (
        "text",
        lambda row: isinstance(row.get("text"), str) and not oasst.is_oasst(row),
        "there is a column 'text'",
    ),
)


def _message_keys(columns: Mapping[str, Any]) -> set[str]:
    lists = (value for value in columns.values() if isinstance(value, list))
    messages: Iterator[Message] = (entry for value in lists for entry in value if isinstance(entry, dict))
    return {key for message in messages for key in message}
