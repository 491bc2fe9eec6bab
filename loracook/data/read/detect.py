"""Which format the rows of a source are in, and whether their columns fit it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from loracook.data.read import oasst
from loracook.data.read.formats import FIELD, WITH_ANSWERS, ReadOptions, column_list, other_task, rename


class FormatError(Exception):
    """The columns of a source do not fit its format; `key` is the key of the source to change."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


def refuse_other_task(columns: Mapping[str, Any], options: ReadOptions) -> None:
    """Raise FormatError for a record that is meant for another kind of training."""
    if reason := other_task(rename(columns, options.columns), options.where):
        raise FormatError("format", f"{reason}; {column_list(columns)}")


def check_columns(columns: Mapping[str, Any], options: ReadOptions) -> None:
    """Raise FormatError if a record lacks a column that the recipe names or the format requires."""
    if options.format in WITH_ANSWERS:
        refuse_other_task(columns, options)
    names = set(columns)
    nested = set(columns["prompt"]) if isinstance(columns.get("prompt"), dict) else set()
    for name in options.where:
        if name not in names | nested:
            raise FormatError("where", f"no column '{name}'; {column_list(columns)}")
        if isinstance(columns.get(name), str) and not _has_text(options.where[name]):
            raise FormatError("where", f"column '{name}' is text; put the value in quotes")
    for ours, theirs in options.columns.items():
        if theirs not in names | _message_keys(columns):
            raise FormatError("columns", f"no column '{theirs}' to read as '{ours}'; {column_list(columns)}")
    renamed = rename(columns, options.columns)
    for name in _required(renamed, options):
        if name in columns and name not in renamed:
            ours = next(our for our, theirs in options.columns.items() if theirs == name)
            message = f"'{name}' is renamed to '{ours}', but format {options.format} requires '{name}'"
            raise FormatError("columns", message)
        if name not in renamed:
            message = f"format {options.format} requires a column '{name}'; {column_list(columns)}"
            raise FormatError("format", message)


def fits(columns: Mapping[str, Any], options: ReadOptions) -> bool:
    """Whether a record has the columns that the recipe and its format require."""
    try:
        format = detect(columns, options)[0] if options.format == "auto" else options.format
        check_columns(columns, replace(options, format=format))
    except FormatError:
        return False
    return True


def detect(columns: Mapping[str, Any], options: ReadOptions) -> tuple[str, str]:
    """The one format that fits a record, and why; raises FormatError if none or several do."""
    renamed = rename(columns, options.columns)
    if set(options.template) & {"prompt", "completion", "messages"}:
        return "columns", "the recipe has a row template"
    refuse_other_task(columns, options)
    fitting = {name: reason for name, (fits, reason) in _FORMATS.items() if fits(renamed)}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    if fitting:
        raise FormatError("format", f"the columns fit {' and '.join(fitting)}; set format to one of them")
    message = f"no format fits; set format or columns, or write a row template; {column_list(columns)}"
    raise FormatError("format", message)


def _has_text(wanted: object) -> bool:
    return any(isinstance(value, str) for value in (wanted if isinstance(wanted, list) else [wanted]))


REQUIRED: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}


def _required(columns: Mapping[str, Any], options: ReadOptions) -> tuple[str, ...]:
    if options.format == "columns":
        template = options.template
        texts = [template.get("prompt", ""), template.get("completion", "")]
        texts += [message["content"] for message in template.get("messages", ())]
        return tuple(FIELD.findall(" ".join(texts)))
    if options.format == "oasst":
        return ("prompt",) if "prompt" in columns else ("text", "role")
    return REQUIRED[options.format]


def _list_of(columns: Mapping[str, Any], name: str, key: str) -> bool:
    value = columns.get(name)
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and key in value[0]


_FORMATS: dict[str, tuple[Callable[[Mapping[str, Any]], bool], str]] = {
    "messages": (lambda row: _list_of(row, "messages", "role"), "column 'messages' lists messages"),
    "sharegpt": (lambda row: _list_of(row, "conversations", "from"), "column 'conversations' lists turns"),
    "alpaca": (lambda row: {"instruction", "output"} <= set(row), "has columns instruction, output"),
    "prompt_completion": (lambda row: {"prompt", "completion"} <= set(row), "has columns prompt, completion"),
    "oasst": (oasst.is_oasst, "has the columns of OpenAssistant messages"),
    "text": (lambda row: isinstance(row.get("text"), str) and not oasst.is_oasst(row), "has a column 'text'"),
}
"""How each format is recognized by the columns of a record, and the reason to show for it."""


def _message_keys(columns: Mapping[str, Any]) -> set[str]:
    lists = (value for value in columns.values() if isinstance(value, list))
    return {key for value in lists for message in value if isinstance(message, dict) for key in message}
