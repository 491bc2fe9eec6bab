"""Rows of every format become the same few kinds of row, and bad ones say why."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from loracook.data.read.detect import FormatError, check_columns, detect
from loracook.data.read.formats import ReadOptions, rows
from loracook.data.read.other_tasks import OTHER_TASKS
from loracook.data.read.rows import Chat, Pair, Row, RowError, Text
from loracook.data.read.scan import has_placeholder

ASK = {"role": "user", "content": "Soup?"}
ANSWER = {"role": "assistant", "content": "Leek."}
CALL = {"type": "function", "function": {"name": "cook", "arguments": {"soup": "leek"}}}
TOOL = {"type": "function", "function": {"name": "cook", "parameters": {"type": "object", "properties": {}}}}


def one(columns: Mapping[str, Any], format: str, /, **shape: Any) -> Row:
    """The one row of these columns."""
    (row,) = rows(columns, ReadOptions(format, **shape))
    if isinstance(row, RowError):
        raise row
    return row


def test_messages_are_unchanged() -> None:
    assert one({"messages": [ASK, ANSWER]}, "messages") == Chat((ASK, ANSWER))


def test_content_in_parts_is_joined_by_kind() -> None:
    parts = [
        {"type": "reasoning", "value": "Hm."},
        {"type": "text", "text": "Let me"},
        {"type": "text", "text": " see."},
        {"type": "tool_call", "value": json.dumps({"name": "cook", "arguments": {"soup": "leek"}})},
    ]
    given = [
        {"role": "user", "content": [{"type": "text", "value": "Soup?"}]},
        {"role": "assistant", "content": parts},
    ]
    answer = {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": [CALL]}
    assert one({"messages": given}, "messages") == Chat((ASK, answer))


def test_tool_calls_as_openai_writes_them_are_decoded() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "cook", "arguments": '{"soup": "leek"}'}}
    given = [
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ANSWER,
    ]
    expected = (
        ASK,
        {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "c1"}]},
        {"role": "tool", "content": "done", "tool_call_id": "c1"},
        ANSWER,
    )
    assert one({"messages": given, "tools": [TOOL]}, "messages") == Chat(expected, (TOOL,))


def test_sharegpt_speakers_tools_and_calls_are_read() -> None:
    given = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Soup?"},
        {"from": "gpt", "value": "Let me see."},
        {"from": "function_call", "value": '{"name": "cook", "arguments": {"soup": "leek"}}'},
        {"from": "observation", "value": "done"},
        {"from": "gpt", "value": "Leek."},
    ]
    expected = (
        {"role": "system", "content": "Be brief."},
        ASK,
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
        {"role": "tool", "content": "done"},
        ANSWER,
    )
    columns = {"conversations": given, "tools": json.dumps([TOOL["function"]])}
    assert one(columns, "sharegpt") == Chat(expected, (TOOL,))


def test_alpaca_rows_are_pairs_unless_they_have_a_past() -> None:
    columns = {"instruction": "Name a soup.", "input": "It is cold.", "output": "Leek."}
    assert one(columns, "alpaca") == Pair("Name a soup.\n\nIt is cold.", "Leek.")
    assert one(columns | {"input": ""}, "alpaca") == Pair("Name a soup.", "Leek.")
    past = columns | {"input": "", "system": "Be brief.", "history": [["Soup?", "Leek."]]}
    turns = (
        {"role": "system", "content": "Be brief."},
        ASK,
        ANSWER,
        {"role": "user", "content": "Name a soup."},
        ANSWER,
    )
    assert one(past, "alpaca") == Chat(turns, prompt_length=4)


def test_pairs_are_text_or_messages() -> None:
    assert one({"prompt": "Soup?", "completion": "Leek."}, "prompt_completion") == Pair("Soup?", "Leek.")
    assert one({"prompt": [ASK], "completion": [ANSWER]}, "prompt_completion") == Chat(
        (ASK, ANSWER), prompt_length=1
    )


def test_columns_and_roles_are_renamed() -> None:
    given = {"talk": [{"who": "guest", "says": "Soup?"}, {"who": "cook", "says": "Leek."}]}
    names = {"messages": "talk", "role": "who", "content": "says"}
    roles = {"guest": "user", "cook": "assistant"}
    assert one(given, "messages", columns=names, roles=roles) == Chat((ASK, ANSWER))


def test_a_row_template_fills_in_columns_and_nothing_else() -> None:
    template = {"prompt": 'Q: {q} {"a": 1} {}', "completion": "{a.__class__}"}
    columns = {"q": "{a}", "a.__class__": 7}
    assert one(columns, "columns", template=template) == Pair('Q: {a} {"a": 1} {}', "7")
    turns = [{"role": "user", "content": "{q}?"}, {"role": "assistant", "content": "{a}"}]
    expected = Chat(({"role": "user", "content": "Soup?"}, ANSWER))
    assert one({"q": "Soup", "a": "Leek."}, "columns", template={"messages": turns}) == expected


def test_messages_may_be_masked_with_a_train_flag() -> None:
    given = [ASK, ANSWER | {"weight": 0}, ASK, ANSWER | {"train": True}]
    assert one({"messages": given}, "messages") == Chat((ASK, ANSWER | {"train": False}, ASK, ANSWER))


def test_numbers_stand_as_they_are_written() -> None:
    assert one({"prompt": 7, "completion": 1.5}, "prompt_completion") == Pair("7", "1.5")


def test_a_tool_call_and_the_words_before_it_are_one_turn_when_marked_alike() -> None:
    words = ANSWER | {"train": False}
    call = {"role": "assistant", "content": "", "tool_calls": [CALL], "weight": 0}
    expected = Chat((ASK, words | {"tool_calls": [CALL]}))
    assert one({"messages": [ASK, words, call]}, "messages") == expected


BAD: dict[str, tuple[str, Mapping[str, Any]]] = {
    "missing column: 'messages'; the columns are text": ("messages", {"text": "x"}),
    "empty column: 'completion' is null": (
        "prompt_completion",
        {"prompt": "x", "completion": None},
    ),
    "no messages: the column is not a list of messages": ("messages", {"messages": []}),
    "empty message: assistant has no text": (
        "messages",
        {"messages": [ASK, ANSWER | {"content": " "}]},
    ),
    "empty message: column 'text' has no text": ("text", {"text": "\n"}),
    "unknown role: 'cook'; map it to user, assistant, system or tool in dataset.map_roles": (
        "messages",
        {"messages": [ASK, ANSWER | {"role": "cook"}]},
    ),
    "repeated role: messages 1 and 2 are both user": ("messages", {"messages": [ASK, ASK, ANSWER]}),
    "no assistant message: the roles are user": ("messages", {"messages": [ASK]}),
    "no user message: the roles are system, assistant": (
        "messages",
        {"messages": [{"role": "system", "content": "x"}, ANSWER]},
    ),
    "invalid tool JSON: tools: Expecting value: line 1 column 2 (char 1)": (
        "messages",
        {"messages": [ASK, ANSWER], "tools": "[oops]"},
    ),
    "invalid tool JSON: a tool call has no name": (
        "messages",
        {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}]},
    ),
    "invalid tool JSON: tools: nested too deeply": (
        "messages",
        {"messages": [ASK, ANSWER], "tools": "[" * 200_000},
    ),
    "invalid tool JSON: tools: not UTF-8: a lone surrogate": (
        "messages",
        {"messages": [ASK, ANSWER], "tools": '["\\ud83d"]'},
    ),
    "no messages: a message is not a mapping": ("prompt_completion", {"prompt": ["x"], "completion": "yes"}),
    "not text: column 'output' is a list": ("alpaca", {"instruction": "i", "output": ["a", "b"]}),
    "not text: column 'completion' is a boolean": (
        "prompt_completion",
        {"prompt": "x", "completion": False},
    ),
    "not text: column 'completion' is a non-finite number": (
        "prompt_completion",
        {"prompt": "x", "completion": float("nan")},
    ),
    "not text: column 'text' is bytes": ("text", {"text": b"soup"}),
    "not text: a part of type 'text' is null": (
        "messages",
        {"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": None}]}]},
    ),
    "not text: 'reasoning' is a list": ("messages", {"messages": [ASK, ANSWER | {"reasoning": ["Hm."]}]}),
    "invalid train flag: 'train' is neither true nor false": (
        "messages",
        {"messages": [ASK, ANSWER | {"train": "false"}]},
    ),
    "repeated role: a tool call and the text before it are one turn; give both the same train flag": (
        "messages",
        {
            "messages": [
                ASK,
                ANSWER | {"train": False},
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
            ]
        },
    ),
    "unsupported content: type 'image'; only text, reasoning and tool calls are supported": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "image", "image": "x"}]}, ANSWER]},
    ),
}


@pytest.mark.parametrize("said", BAD)
def test_a_bad_row_says_what_is_wrong(said: str) -> None:
    format, columns = BAD[said]
    with pytest.raises(RowError) as caught:
        one(columns, format)
    assert str(caught.value) == said


def test_a_bad_row_is_named_in_the_words_of_the_data() -> None:
    names = {"prompt": "question", "completion": "answer"}
    with pytest.raises(RowError) as caught:
        one({"question": {"a": 1}, "answer": "x"}, "prompt_completion", columns=names)
    assert str(caught.value) == "not text: column 'question' is a mapping"


GUESSED: dict[str, Mapping[str, Any]] = {
    "messages": {"messages": [ASK, ANSWER]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Soup?"}]},
    "alpaca": {"instruction": "x", "input": "", "output": "y"},
    "prompt_completion": {"prompt": "x", "completion": "y"},
    "text": {"text": "x", "meta": 1},
    "oasst": {"message_id": "1", "parent_id": None, "text": "x", "role": "prompter"},
}


@pytest.mark.parametrize("format", GUESSED)
def test_a_format_that_alone_fits_is_taken(format: str) -> None:
    assert detect(GUESSED[format], ReadOptions("auto"))[0] == format


UNREADABLE: dict[str, Mapping[str, Any]] = {
    "the columns fit messages and text; set format to one of them": {"messages": [ASK, ANSWER], "text": "x"},
    "no format fits; set format or columns, or write a row template; the columns are q, a": {
        "q": 1,
        "a": 2,
    },
    "pairs (chosen, rejected) are for DPO; for SFT on the chosen, columns: {completion: chosen}; "
    "the columns are prompt, chosen, rejected": {
        "prompt": "x",
        "chosen": "y",
        "rejected": "z",
    },
    "rated answers (label) are for KTO; for SFT on the good ones, where: {label: true}; "
    "the columns are prompt, completion, label": {
        "prompt": "x",
        "completion": "y",
        "label": True,
    },
    "rows with images are for vision models; loracook trains on text only; the columns are messages, images": {
        "messages": [ASK, ANSWER],
        "images": ["a.jpg"],
    },
    "pairs (preferred_output, non_preferred_output) are for DPO; the columns are input, preferred_output": {
        "input": {"messages": [ASK]},
        "preferred_output": [ANSWER],
    },
    "no format fits; set format or columns, or write a row template; the columns are system, chat": {
        "system": "Be brief.",
        "chat": "USER: x ASSISTANT: y",
    },
    "questions without answers cannot be trained on; list them in evaluate.prompts; "
    "the columns are question_id, turns": {"question_id": 81, "turns": ["Soup?", "Why?"]},
}


@pytest.mark.parametrize("said", UNREADABLE)
def test_rows_that_fit_no_format_or_several_are_refused(said: str) -> None:
    with pytest.raises(FormatError) as caught:
        detect(UNREADABLE[said], ReadOptions("auto"))
    assert str(caught.value) == said


BESIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "chosen": ("prompt_completion", {"prompt": "x", "completion": "y", "chosen": "y", "rejected": "z"}),
    "label": ("messages", {"messages": [ASK, ANSWER], "label": False}),
    "images": ("messages", {"messages": [ASK, ANSWER], "images": ["a.jpg"]}),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_format_that_is_written_lets_no_other_training_in(name: str) -> None:
    format, columns = BESIDE[name]
    with pytest.raises(FormatError) as caught:
        check_columns(columns, ReadOptions(format))
    assert str(caught.value).startswith(OTHER_TASKS[name])


def test_columns_that_only_look_like_another_training_stay_allowed() -> None:
    check_columns({"q": "x", "label": True}, ReadOptions("columns", template={"completion": "{q}"}))
    check_columns({"messages": [ASK, ANSWER], "label": "cooking", "images": []}, ReadOptions("messages"))
    check_columns(
        {"prompt": "x", "completion": "y", "label": True},
        ReadOptions("prompt_completion", where={"label": True}),
    )


def test_a_required_column_that_is_renamed_is_refused() -> None:
    template = {"completion": "{question}"}
    with pytest.raises(FormatError) as caught:
        check_columns(
            {"question": "x"}, ReadOptions("columns", columns={"prompt": "question"}, template=template)
        )
    assert str(caught.value) == "'question' is renamed to 'prompt', but format columns requires 'question'"


def test_unfilled_placeholders_are_detected() -> None:
    assert has_placeholder(Pair("Who are you?", "I am {{name}}."))
    assert not has_placeholder(Text("In Jinja, {{ 1 + 1 }} is 2 and {x} is nothing."))


TYPED: dict[str, tuple[Mapping[str, Any], dict[str, Any]]] = {
    "columns: {completion: chosen}": (
        {"prompt": "x", "chosen": "y", "rejected": "z"},
        {"columns": {"completion": "chosen"}},
    ),
    "columns: {messages: chosen}": (
        {"prompt": "x", "chosen": [ASK, ANSWER], "rejected": [ASK, ANSWER]},
        {"columns": {"messages": "chosen"}},
    ),
    "columns: {text: chosen}": ({"chosen": "x", "rejected": "y"}, {"columns": {"text": "chosen"}}),
    "set format: messages": (
        {"prompt": "x", "chosen": [ASK, ANSWER], "messages": [ASK, ANSWER]},
        {"format": "messages"},
    ),
    "where: {label: true}": ({"prompt": "x", "completion": "y", "label": True}, {"where": {"label": True}}),
}


@pytest.mark.parametrize("advice", TYPED)
def test_the_advice_of_data_for_another_task_works_when_typed(advice: str) -> None:
    columns, typed = TYPED[advice]
    with pytest.raises(FormatError, match=re.escape(advice)):
        detect(columns, ReadOptions("auto"))
    options = ReadOptions(**{"format": "auto", **typed})
    if options.format == "auto":
        options = replace(options, format=detect(columns, options)[0])
    check_columns(columns, options)
    (row,) = rows(columns, options)
    assert not isinstance(row, RowError)
