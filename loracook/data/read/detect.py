"""Which format the rows of a source are in, and whether their columns fit it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from loracook.data.read import oasst
from loracook.data.read.formats import (
    COLUMNS,
    FIELD,
    SHAREGPT,
    WITH_ANSWERS,
    ReadOptions,
    beside_answers,
    column_list,
    named,
    rename,
    template_texts,
)
from loracook.data.read.message_keys import OF_SOME_ROLE, ROLE
from loracook.data.read.other_tasks import other_task
from loracook.data.read.propose import proposal
from loracook.recipe.did_you_mean import closest
from loracook.recipe.yaml_values import flow


class FormatError(Exception):
    """The columns of a source do not fit its format; `key` (or a path) is what to change."""

    def __init__(self, key: str | tuple[str, ...], message: str) -> None:
        self.key = key
        super().__init__(message)


def refuse_other_task(columns: Mapping[str, Any], options: ReadOptions) -> None:
    """Raise FormatError for a record that is meant for another kind of training."""
    if reason := other_task(rename(columns, options.columns), [*options.where, *beside_answers(options)]):
        raise FormatError("format", f"{reason}; {column_list(columns)}")


def check_columns(columns: Mapping[str, Any], options: ReadOptions) -> None:
    """Raise FormatError if a record lacks a column that the recipe names or the format requires."""
    if options.format in WITH_ANSWERS:
        refuse_other_task(columns, options)
    names = set(columns)
    nested = set(columns["prompt"]) if isinstance(columns.get("prompt"), dict) else set()
    for name in options.where:
        if name not in names | nested:
            raise FormatError(("where", name), missing(name, columns))
        if isinstance(columns.get(name), str) and not _has_text(options.where[name]):
            raise FormatError(("where", name), f"column '{name}' is text; put the value in quotes")
    _check_names(columns, options)
    _check_renamed(options)
    renamed = rename(columns, options.columns)
    for name in _required(renamed, options):
        if name in columns and name not in renamed:
            ours = next(our for our, theirs in options.columns.items() if theirs == name)
            message = f"'{name}' is renamed to '{ours}', but format {options.format} requires '{name}'"
            raise FormatError(("columns", ours), message)
        if name not in renamed:
            message = f"format {options.format} requires a column '{name}'; {_advice(name, columns)}"
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
    if set(options.template) & {"prompt", "completion", "messages"}:
        return "columns", "the recipe has a row template"
    _check_names(columns, options)
    renamed = rename(columns, options.columns)
    refuse_other_task(columns, options)
    fitting = [name for name, fits in _FORMATS.items() if fits(renamed)]
    if len(fitting) == 1:
        return fitting[0], _reason(fitting[0], renamed, options)
    if fitting:
        raise FormatError("format", f"the columns fit {' and '.join(fitting)}; set format to one of them")
    raise FormatError("format", f"no format fits; {_proposed(columns)}; {column_list(columns)}")


def missing(name: str, columns: Mapping[str, Any]) -> str:
    """What to say of a column that is not there."""
    return f"no column '{name}'; {_advice(name, columns)}"


def _advice(name: str, columns: Mapping[str, Any]) -> str:
    match = closest(name, [column for column in columns if column != name])
    return (f"did you mean '{match}'? " if match else "") + column_list(columns)


def _check_names(columns: Mapping[str, Any], options: ReadOptions) -> None:
    """Raise FormatError for a name in `columns` that the data does not have."""
    names = {**dict.fromkeys(columns), **dict.fromkeys(_message_keys(columns))}
    for ours, theirs in options.columns.items():
        if theirs not in names:
            swapped = ours in names and any(theirs in read for read in COLUMNS.values())
            advice = f"write '{theirs}: {ours}'" if swapped else _advice(theirs, columns)
            raise FormatError(("columns", ours), f"no column '{theirs}'; {advice}")


def _check_renamed(options: ReadOptions) -> None:
    """Raise FormatError for a name in `columns` that the format does not read."""
    read = COLUMNS[options.format]
    for ours in options.columns:
        if read and ours not in {*read, *OF_SOME_ROLE}:
            match = closest(ours, read)
            advice = f"did you mean '{match}'?" if match else f"it reads {', '.join(read)}"
            raise FormatError(("columns", ours), f"format {options.format} reads no '{ours}'; {advice}")


def _proposed(columns: Mapping[str, Any]) -> str:
    """What to write for columns that no format fits."""
    format, names = proposal(columns) or ("", {})
    if not names:
        return "set format or columns, or write a row template"
    return f"for {format}, add 'columns: {flow(names)}'"


def _reason(format: str, columns: Mapping[str, Any], options: ReadOptions) -> str:
    """The columns that a format was recognized by, as the data calls them."""
    required = [name for name in RECOGNIZED[format] if name in columns]
    return named("column", [options.columns.get(name, name) for name in required])


def _has_text(wanted: object) -> bool:
    return any(isinstance(value, str) for value in (wanted if isinstance(wanted, list) else [wanted]))


REQUIRED: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": SHAREGPT[:1],
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}


def _required(columns: Mapping[str, Any], options: ReadOptions) -> tuple[str, ...]:
    if options.format == "columns":
        return tuple(FIELD.findall(" ".join(template_texts(options.template))))
    if options.format == "oasst":
        return ("prompt",) if "prompt" in columns else ("text", "role")
    if options.format == "sharegpt":
        return (next((name for name in SHAREGPT if name in columns), SHAREGPT[0]),)
    return REQUIRED[options.format]


def _has_turns(columns: Mapping[str, Any], *names: str) -> bool:
    """Whether one of these columns lists messages, or is text that looks like a list."""
    values = [columns.get(name) for name in names]
    lists = [value for value in values if isinstance(value, list) and value]
    return any(isinstance(turns[0], dict) and {*ROLE} & {*turns[0]} for turns in lists) or any(
        isinstance(value, str) and value.lstrip().startswith("[") for value in values
    )


_FORMATS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "messages": lambda row: _has_turns(row, "messages"),
    "sharegpt": lambda row: _has_turns(row, *SHAREGPT),
    "alpaca": lambda row: {"instruction", "output"} <= set(row),
    "prompt_completion": lambda row: {"prompt", "completion"} <= set(row),
    "oasst": oasst.is_oasst,
    "text": lambda row: isinstance(row.get("text"), str) and not oasst.is_oasst(row),
}
"""How each format is recognized by the columns of a record."""
RECOGNIZED: dict[str, tuple[str, ...]] = {**REQUIRED, "sharegpt": SHAREGPT, "oasst": oasst.COLUMNS}
"""The columns by which."""


def _message_keys(columns: Mapping[str, Any]) -> set[str]:
    lists = (value for value in columns.values() if isinstance(value, list))
    return {key for value in lists for message in value if isinstance(message, dict) for key in message}
