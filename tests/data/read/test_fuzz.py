"""Rows of any shape are read or refused with a reason; nothing else is raised."""

from __future__ import annotations

import random
from typing import Any

import pytest

from loracook.data.read.detect import FormatError, check_columns, detect
from loracook.data.read.formats import READERS, ReadOptions, rows
from loracook.data.read.oasst import trees
from loracook.data.read.rows import Place, Record, RowError
from loracook.data.read.scan import has_placeholder

KEYS = [
    "messages",
    "conversations",
    "conversation",
    "functions",
    "function_call",
    "chat_template_kwargs",
    "parts",
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "prompt",
    "completion",
    "text",
    "tools",
    "role",
    "from",
    "content",
    "value",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "type",
    "train",
    "message_id",
    "parent_id",
    "replies",
    "rank",
    "lang",
    "weight",
]
WORDS = (
    "user",
    "assistant",
    "system",
    "tool",
    "human",
    "gpt",
    "function_call",
    "",
    " ",
    "Leek.",
    "{{name}}",
    "[{}]",
    "{",
)


def anything(draw: random.Random, depth: int = 0) -> Any:
    """A JSON value with keys and words that formats look for."""
    kind = draw.randrange(9 if depth < 5 else 4)
    if kind < 3:
        return draw.choice(WORDS)
    if kind == 3:
        return draw.choice([None, True, False, 0, -1, 1.5, 10**20])
    if kind < 6:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {key: anything(draw, depth + 1) for key in draw.sample(KEYS, draw.randrange(5))}


def row(draw: random.Random) -> dict[str, Any]:
    return {key: anything(draw) for key in draw.sample(KEYS, draw.randrange(1, 9))}


@pytest.mark.parametrize("format", [format for format in READERS if format != "columns"])
def test_a_row_is_read_or_refused_with_a_reason(format: str) -> None:
    draw = random.Random(format)
    for _ in range(5000):
        columns = row(draw)
        for found in rows(columns, ReadOptions(format)):
            assert isinstance(found, RowError) or has_placeholder(found) in (True, False)


def test_a_format_is_guessed_or_refused_with_a_reason() -> None:
    draw = random.Random(0)
    for _ in range(5000):
        columns = row(draw)
        try:
            format, _ = detect(columns, ReadOptions("auto"))
            check_columns(columns, ReadOptions(format))
        except FormatError:
            continue


def test_trees_are_put_together_from_anything() -> None:
    draw = random.Random(1)
    records = [Record(Place("a.jsonl", number), row(draw)) for number in range(3000)]
    for tree in trees(records):
        list(rows(tree.columns, ReadOptions("oasst")))
