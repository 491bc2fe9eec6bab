"""Formats: the columns of a record → its rows."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loracook.data.read import oasst
from loracook.data.read.chats import CHAT_COLUMNS, chat
from loracook.data.read.message_keys import is_empty
from loracook.data.read.messages import conversation
from loracook.data.read.other_tasks import other_task
from loracook.data.read.rows import (
    MAX_CHARACTERS,
    Chat,
    Pair,
    Row,
    RowError,
    Text,
    TooLongError,
    as_text,
    characters,
)
from loracook.data.read.turns import TURNS, as_turns, begins_like_turns

SHAREGPT = ("conversations", "conversation")
SHOWN = 20
MISSING = "missing column"
FIELD = re.compile(r"\{([^{}\"':,\n]+)\}")
WITH_ANSWERS = ("messages", "sharegpt", "alpaca", "prompt_completion")
"""Formats whose rows would train as answers, regardless of other columns."""


@dataclass(frozen=True)
class ReadOptions:
    """What the recipe says about reading one source."""

    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)
    best: bool = False


def rows(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    """The rows of one record, a RowError for each unusable one; none if `where` filters the record out."""
    renamed = rename(columns, options.columns)
    try:
        if options.format == "oasst" or passes(columns, options.where):
            if options.format in WITH_ANSWERS and (
                reason := other_task(renamed, [*options.where, *beside_answers(options)])
            ):
                raise RowError("not for SFT", reason)
            yield from map(_bounded, READERS[options.format](renamed, options))
    except RowError as error:
        told = error.in_words_of(options.columns)
        listed = f"{told.detail}; {column_list(columns)}"
        yield RowError(MISSING, listed) if told.reason == MISSING else told


def _bounded(row: Row | RowError) -> Row | RowError:
    """The row, or why it cannot be tokenized whatever its template writes."""
    count = 0 if isinstance(row, RowError) else characters(row)
    return TooLongError(count) if count > MAX_CHARACTERS else row


def beside_answers(options: ReadOptions) -> tuple[str, ...]:
    """The columns of other tasks that may stand beside messages, which have the answers already."""
    return ("chosen",) if options.format in ("messages", "sharegpt") else ()


def rename(columns: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The columns under our names; keys inside lists of messages are renamed too."""
    renamed, ours = dict(columns), {theirs: our for our, theirs in names.items()}
    if ours:
        moved = {our: columns[theirs] for our, theirs in names.items() if theirs in columns}
        others = {name: value for name, value in columns.items() if name not in ours and name not in moved}
        renamed = others | moved
    renamed |= {name: as_turns(name, renamed[name]) for name in TURNS if name in renamed}
    return {name: _rename_keys(value, ours) for name, value in renamed.items()} if ours else renamed


def passes(columns: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a record passes the filter."""
    return all(name in columns and oasst.matches(columns, name, wanted) for name, wanted in where.items())


def column_list(columns: Mapping[str, Any]) -> str:
    """The names of the columns, for messages."""
    return "the columns are " + ", ".join(columns) if columns else "there are no columns"


def named(what: str, names: Sequence[str]) -> str:
    """Names of columns or keys in a sentence: `columns 'id' and 'score'`."""
    shown = [repr(name) for name in names[:SHOWN]]
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    listed = [", ".join(shown[:-1] if not more else shown), *(more or shown[-1:])]
    return f"{what}{'s' if len(names) > 1 else ''} {' and '.join(filter(None, listed))}"


def fill(template: str, columns: Mapping[str, Any]) -> str:
    """A row template with each `{column}` replaced by that column's text; raises RowError."""
    return FIELD.sub(lambda match: _text(columns, match[1]), template)


def _messages(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    yield chat(columns, _column(columns, "messages"), options.roles)


def _sharegpt(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    name, *others = [name for name in SHAREGPT if not is_empty(columns.get(name))] or [SHAREGPT[0]]
    if any(columns[other] != columns[name] for other in others):
        advice = f"set format: messages and columns: {{messages: {name}}}"
        raise RowError("several conversations", f"{named('column', SHAREGPT)} differ; {advice}")
    yield chat(columns, _column(columns, name), options.roles)


def _alpaca(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    prompt = "\n\n".join(filter(None, (_text(columns, "instruction"), _text(columns, "input", ""))))
    answer = _nonempty(columns, "output")
    history = _history(columns)
    if not history and not _has_any(columns, CHAT_COLUMNS):
        yield Pair(_nonempty({"instruction": prompt}, "instruction"), answer)
        return
    messages = []
    for question, reply in [*history, (prompt, answer)]:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    yield chat(columns, messages, options.roles, prompt_length=len(messages) - 1)


def _history(columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    history = columns.get("history") or []
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise RowError("no messages", "'history' is not a list of [question, answer] pairs")
    return [(question, reply) for question, reply in history]


def _prompt_completion(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    prompt, completion = _column(columns, "prompt"), _column(columns, "completion")
    for name in ("prompt", "completion"):
        if begins_like_turns(columns[name]):
            detail = f"column '{name}' is not a list of messages in JSON; write lists with json.dumps"
            raise RowError("no messages", detail)
    if (
        not isinstance(prompt, list)
        and not isinstance(completion, list)
        and not _has_any(columns, CHAT_COLUMNS)
    ):
        yield Pair(_nonempty(columns, "prompt"), _nonempty(columns, "completion"))
        return
    asked, answered = _turns(columns, "prompt", "user"), _turns(columns, "completion", "assistant")
    yield chat(columns, asked + answered, options.roles, prompt_length=len(asked))


def _turns(columns: Mapping[str, Any], name: str, role: str) -> list[Any]:
    """The messages of a column; text is the one message of a role."""
    value = columns[name]
    return value if isinstance(value, list) else [{"role": role, "content": _nonempty(columns, name)}]


def _has_any(columns: Mapping[str, Any], names: Iterable[str]) -> bool:
    return any(columns.get(name) for name in names)


def _plain(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    yield Text(_nonempty(columns, "text"))


def _trees(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    where, nested = options.where, "prompt" in columns
    tree_filter = {name: wanted for name, wanted in where.items() if name in columns and nested}
    message_filter = {name: wanted for name, wanted in where.items() if name not in tree_filter}
    if passes(columns, tree_filter):
        yield from oasst.threads(columns, message_filter, options.roles, best=options.best)


def _templated(columns: Mapping[str, Any], options: ReadOptions) -> Iterator[Row | RowError]:
    template = options.template
    if "messages" in template:
        messages = [{**turn, "content": fill(turn["content"], columns)} for turn in template["messages"]]
        yield Chat(conversation(messages, options.roles))
        return
    prompt, completion = fill(template.get("prompt", ""), columns), fill(template["completion"], columns)
    if not completion.strip():
        raise RowError("empty message", "the completion has no text")
    yield Pair(prompt, completion) if prompt else Text(completion)


READERS: dict[str, Callable[[Mapping[str, Any], ReadOptions], Iterator[Row | RowError]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "text": _plain,
    "oasst": _trees,
    "columns": _templated,
}

COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", *CHAT_COLUMNS),
    "sharegpt": (*SHAREGPT, *CHAT_COLUMNS),
    "alpaca": ("instruction", "input", "output", "history", *CHAT_COLUMNS),
    "prompt_completion": ("prompt", "completion", *CHAT_COLUMNS),
    "text": ("text",),
    "oasst": oasst.COLUMNS,
    "columns": (),
}
"""The columns that each format reads; those of a row template are in the recipe."""


def columns_read(options: ReadOptions) -> frozenset[str]:
    """The columns that are read, as the data calls them."""
    names = (*COLUMNS[options.format], *FIELD.findall(" ".join(template_texts(options.template))))
    return frozenset((*(options.columns.get(name, name) for name in names), *options.where))


def template_texts(template: Mapping[str, Any]) -> list[str]:
    """The texts of a row template, in which `{column}` stands for a column."""
    texts = [template.get("prompt", ""), template.get("completion", "")]
    return texts + [message["content"] for message in template.get("messages", ())]


def _rename_keys(value: Any, ours: Mapping[str, str]) -> Any:
    if not ours or not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return value
    return [{ours.get(name, name): part for name, part in message.items()} for message in value]


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if columns.get(name) is None:
        raise (
            RowError("empty column", f"'{name}' is null")
            if name in columns
            else RowError(MISSING, f"'{name}'")
        )
    return columns[name]


def _text(columns: Mapping[str, Any], name: str, default: str | None = None) -> str:
    if columns.get(name) is None and default is not None:
        return default
    return as_text(_column(columns, name), f"column '{name}'")


def _nonempty(columns: Mapping[str, Any], name: str) -> str:
    text = _text(columns, name)
    if not text.strip():
        raise RowError("empty message", f"column '{name}' has no text")
    return text
