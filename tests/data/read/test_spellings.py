"""Messages, tools and calls are read in the spellings of other tools, and where a text is not certain it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import loracook.data as data
from loracook.data.read.formats import ReadOptions, rows
from loracook.data.read.rows import Chat, Pair, RowError
from loracook.data.read.selection import select
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import json_lines, recipe, tokenizer

ASK = {"role": "user", "content": "Soup?"}
ANSWER = {"role": "assistant", "content": "Leek."}
FUNCTION = {"name": "cook", "parameters": {"type": "object", "properties": {"soup": {"default": None}}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"type": "function", "function": {"name": "cook", "arguments": {"soup": "leek"}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def chat(columns: dict[str, Any], format: str = "messages", **options: Any) -> Chat:
    """The one chat of these columns."""
    (row,) = rows(columns, ReadOptions(format, **options))
    if isinstance(row, RowError):
        raise row
    assert isinstance(row, Chat)
    return row


CALLS: dict[str, dict[str, Any]] = {
    "function_call": {"content": None, "function_call": {"name": "cook", "arguments": '{"soup": "leek"}'}},
    "calls as text": {"content": "", "tool_calls": json.dumps([CALL])},
    "one call": {"content": "", "tool_calls": CALL},
    "a list of texts": {"content": "", "tool_calls": [json.dumps(CALL)]},
    "arguments as text in text": {"content": "", "tool_calls": [{"name": "cook", "arguments": '"{\\"soup\\": \\"leek\\"}"'}]},
    "parameters": {"content": "", "tool_calls": [{"name": "cook", "parameters": {"soup": "leek"}}]},
    "tool_use": {"content": [{"type": "tool_use", "id": "t", "name": "cook", "input": {"soup": "leek"}}]},
    "a tool_call part": {"content": [{"type": "tool_call", "tool_call": CALL}]},
}  # fmt: skip


@pytest.mark.parametrize("spelling", CALLS)
def test_calls_are_read_in_every_spelling(spelling: str) -> None:
    found = chat(
        {"messages": [ASK, {"role": "assistant", **CALLS[spelling]}, {"role": "function", "content": ""}]}
    )
    calls = [{key: call[key] for key in ("type", "function")} for call in found.messages[1]["tool_calls"]]
    assert (calls, found.unread) == ([CALL], frozenset())


@pytest.mark.parametrize("value", [{"name": "cook", "arguments": {"soup": "leek"}}, [CALL], json.dumps(CALL)])
@pytest.mark.parametrize("role", ["function_call", "tool_call", "function-call"])
def test_a_turn_that_is_a_call_is_the_assistant_s(role: str, value: Any) -> None:
    found = chat(
        {"conversations": [{"from": "human", "value": "Soup?"}, {"from": role, "value": value}]}, "sharegpt"
    )
    assert found.messages == (ASK, CALLING)


TOOLS: dict[str, dict[str, Any]] = {
    "a column": {"tools": [TOOL]},
    "text": {"tools": json.dumps([TOOL])},
    "a list of texts": {"tools": [json.dumps(TOOL)]},
    "one tool": {"tools": TOOL},
    "functions": {"functions": [FUNCTION]},
    "the same twice": {"functions": [FUNCTION], "tools": [TOOL]},
    "of Responses": {"tools": [{"type": "function", **FUNCTION}]},
    "of Anthropic": {"tools": [{"name": "cook", "input_schema": FUNCTION["parameters"]}]},
}


@pytest.mark.parametrize("spelling", TOOLS)
def test_tools_are_read_in_every_spelling(spelling: str) -> None:
    assert chat({"messages": [ASK, ANSWER], **TOOLS[spelling]}).tools == (TOOL,)


@pytest.mark.parametrize("key", ["tools", "functions"])
@pytest.mark.parametrize("listed", [[FUNCTION], json.dumps([TOOL])])
def test_tools_in_the_system_message_are_those_of_the_row(key: str, listed: Any) -> None:
    system = {"role": "system", "content": "Be brief."}
    assert chat({"messages": [system | {key: listed}, ASK, ANSWER]}) == Chat((system, ASK, ANSWER), (TOOL,))
    assert chat({"messages": [{"role": "system", "content": "", key: listed}, ASK, ANSWER]}).tools == (TOOL,)


ANSWERS: list[tuple[Any, str]] = [
    ("", ""),
    (None, ""),
    (21.5, "21.5"),
    (True, "true"),
    ({"soup": "lauch ü"}, '{"soup": "lauch ü"}'),
    ([{"type": "soup"}, 2], '[{"type": "soup"}, 2]'),
    ([{"type": "text", "text": "leek"}], "leek"),
]


@pytest.mark.parametrize(("content", "text"), ANSWERS)
def test_what_a_tool_answers_is_text_or_json(content: Any, text: str) -> None:
    found = chat({"messages": [ASK, CALLING, {"role": "tool", "content": content}, ANSWER]})
    assert found.messages[2] == {"role": "tool", "content": text}


def test_an_empty_system_turn_is_left_out() -> None:
    for empty in ({"role": "system", "content": ""}, {"from": "system", "value": None}):
        assert chat({"messages": [empty, ASK, ANSWER]}).messages == (ASK, ANSWER)
    prompt = [{"role": "system", "content": " "}, ASK]
    assert chat({"prompt": prompt, "completion": [ANSWER]}, "prompt_completion") == Chat((ASK, ANSWER), (), 1)


TURNS: dict[str, tuple[str, dict[str, Any]]] = {
    "a cell of JSON": ("messages", {"messages": json.dumps([ASK, ANSWER])}),
    "lists by key": ("messages", {"messages": {"role": ["user", "assistant"], "content": ["Soup?", "Leek."]}}),
    "roles in sharegpt": ("sharegpt", {"conversations": [ASK, ANSWER]}),
    "conversation": ("sharegpt", {"conversation": [{"from": "human", "value": "Soup?"}, {"from": "gpt", "value": "Leek."}]}),
    "capitals": ("messages", {"messages": [ASK | {"role": "User"}, ANSWER | {"role": "Assistant"}]}),
    "text": ("messages", {"messages": [{"role": "user", "text": "Soup?"}, ANSWER]}),
    "Gemini": ("messages", {"messages": [ASK, {"role": "model", "parts": [{"text": "Leek."}]}]}),
    "a single part": ("messages", {"messages": [ASK, {"role": "assistant", "content": {"type": "text", "text": "Leek."}}]}),
}  # fmt: skip


@pytest.mark.parametrize("spelling", TURNS)
def test_turns_are_read_in_every_spelling(spelling: str) -> None:
    format, columns = TURNS[spelling]
    assert chat(columns, format).messages == (ASK, ANSWER)


READ_AS_THEY_ARE: dict[str, dict[str, Any]] = {
    **{name: columns for name, (_, columns) in TURNS.items()},
    "LMSYS-Chat-1M": {"conversation_id": "c1", "model": "m", "conversation": [ASK, ANSWER], "turn": 1},
    "an empty one beside": {"conversations": [], "conversation": [ASK, ANSWER]},
    "the same twice": {"conversations": [ASK, ANSWER], "conversation": [ASK, ANSWER]},
}


def selected(folder: Path, rows: list[dict[str, Any]], **dataset: Any) -> list[Any]:
    """The training rows of a recipe for these rows."""
    json_lines(folder / "a.jsonl", rows)
    book = recipe(folder, dataset={"path": "./a.jsonl", **dataset})
    return [found.row for found in select(book, Silent()).train()]


@pytest.mark.parametrize("written", ["auto", "sharegpt"])
@pytest.mark.parametrize("spelling", READ_AS_THEY_ARE)
def test_turns_are_read_by_a_recipe_that_renames_nothing(spelling: str, written: str, tmp_path: Path) -> None:
    columns = READ_AS_THEY_ARE[spelling]
    (found,) = selected(tmp_path, [columns], format=written if "messages" not in columns else "messages")
    assert found.messages == (ASK, ANSWER)


def test_a_conversation_column_may_be_of_another_name(tmp_path: Path) -> None:
    for ours in ("conversations", "conversation"):
        (found,) = selected(tmp_path, [{"talk": [ASK, ANSWER]}], columns={ours: "talk"})
        assert found.messages == (ASK, ANSWER)


def test_two_conversations_that_differ_are_refused_with_the_way_to_choose(tmp_path: Path) -> None:
    rows = [{"conversations": [ASK, ANSWER], "conversation": [ASK, ANSWER | {"content": "Onion."}]}]
    said = refusal(tmp_path, rows)
    assert "several conversations: columns 'conversations' and 'conversation' differ; set format: " in said
    (found,) = selected(tmp_path, rows, format="messages", columns={"messages": "conversations"})
    assert found.messages == (ASK, ANSWER)


PAIRS: list[dict[str, Any]] = [
    {"prompt": [ASK], "completion": "Leek."},
    {"prompt": "Soup?", "completion": [ANSWER]},
    {"prompt": ASK, "completion": ANSWER},
    {"prompt": json.dumps([ASK]), "completion": json.dumps([ANSWER])},
]


@pytest.mark.parametrize("columns", PAIRS)
def test_a_prompt_and_its_completion_may_each_be_text_or_turns(columns: dict[str, Any]) -> None:
    assert chat(columns, "prompt_completion") == Chat((ASK, ANSWER), prompt_length=1)


def test_text_that_looks_like_a_list_stays_the_text_of_a_prompt() -> None:
    columns = {"prompt": "[1, 2]", "completion": '{"sum": 3}'}
    assert list(rows(columns, ReadOptions("prompt_completion"))) == [Pair("[1, 2]", '{"sum": 3}')]


@pytest.mark.parametrize("column", ["prompt", "completion"])
@pytest.mark.parametrize(
    "text",
    [repr([ASK]), " " + repr([ASK, ANSWER]), json.dumps([ASK])[:-3], json.dumps([ASK, {"x": 1}])],
)
def test_text_that_begins_like_messages_and_is_none_is_refused(column: str, text: str) -> None:
    said = f"column '{column}' is not a list of messages in JSON; write lists with json.dumps"
    with pytest.raises(RowError, match=said):
        chat({"prompt": "Soup?", "completion": "Leek."} | {column: text}, "prompt_completion")


def test_columns_for_a_chat_make_one_of_a_pair() -> None:
    columns = {"prompt": "Soup?", "completion": "Leek.", "system": "Be brief.", "tools": [FUNCTION]}
    system = {"role": "system", "content": "Be brief."}
    assert chat(columns, "prompt_completion") == Chat((system, ASK, ANSWER), (TOOL,), 2)
    alpaca = {"instruction": "Soup?", "output": "Leek.", "chat_template_kwargs": '{"enable_thinking": false}'}
    assert chat(alpaca, "alpaca").template_kwargs == {"enable_thinking": False}


THINKING, SAYING = {"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Leek."}
USING = {"type": "tool_use", "id": "t", "name": "cook", "input": {"soup": "leek"}}
ANSWERED = {"type": "tool_result", "tool_use_id": "t", "content": "done"}
OUT_OF_ORDER: dict[str, list[dict[str, Any]]] = {
    "text behind a tool call": [ASK, {"role": "assistant", "content": [SAYING, USING, SAYING]}],
    "reasoning behind text": [ASK, {"role": "assistant", "content": [THINKING, SAYING, THINKING, SAYING]}],
    "reasoning behind a tool call": [ASK, {"role": "assistant", "content": [THINKING, USING, THINKING, USING]}],
    "text before a tool's answer": [ASK, CALLING, {"role": "user", "content": [SAYING, ANSWERED]}, ANSWER],
    "reasoning behind the text": [ASK, ANSWER, CALLING | {"reasoning_content": "Hm."}],
}  # fmt: skip


@pytest.mark.parametrize("said", OUT_OF_ORDER)
def test_parts_in_an_order_that_no_template_writes_are_refused(said: str) -> None:
    with pytest.raises(RowError, match=f"order of parts: .*{said}"):
        chat({"messages": OUT_OF_ORDER[said]})


def test_parts_in_the_order_of_templates_are_read() -> None:
    parts = [THINKING, THINKING, SAYING, SAYING, USING, {"type": "text", "text": ""}, USING]
    found = chat({"messages": [ASK, {"role": "assistant", "content": parts}]}).messages[1]
    assert (found["reasoning_content"], found["content"]) == ("Hm.Hm.", "Leek.Leek.")
    assert len(found["tool_calls"]) == 2


UNCERTAIN: dict[str, dict[str, Any]] = {
    "not text: the assistant's content is a mapping; write it as text, such as json.dumps makes": {
        "messages": [ASK, ANSWER | {"content": {"soup": "leek"}}]
    },
    "not text: the user's content is a list without types; join its parts to one text": {
        "messages": [ASK | {"content": ["a", "b"]}, ANSWER]
    },
    "not text: the user's content is a boolean": {"messages": [ASK | {"content": True}, ANSWER]},
    "no messages: the column is text and not JSON; write lists with json.dumps": {
        "messages": "[{'role': 'user', 'content': 'Soup?'}]"
    },
    "several lists of tools: a row has one, in 'tools' or in its system message": {
        "messages": [{"role": "system", "content": "x", "tools": [TOOL]}, ASK, ANSWER],
        "tools": [{"name": "eat"}],
    },
    "invalid tool JSON: a tool has no name": {
        "messages": [ASK, ANSWER],
        "tools": [{"functionDeclarations": [FUNCTION]}],
    },
    "invalid tool JSON: the arguments of 'cook' are not a mapping": {
        "messages": [ASK, {"role": "assistant", "tool_calls": [{"name": "cook", "arguments": "[1]"}]}]
    },
    "empty message: assistant has no text, only 'refusal'": {
        "messages": [ASK, {"role": "assistant", "content": None, "refusal": "No."}]
    },
    "empty message: system has no text, only 'contnt'": {
        "messages": [{"role": "system", "contnt": "Be brief."}, ASK, ANSWER]
    },
    "invalid chat_template_kwargs: a row may not set 'chat_template', 'tokenize'": {
        "messages": [ASK, ANSWER],
        "chat_template_kwargs": {"tokenize": True, "chat_template": "x"},
    },
    "invalid chat_template_kwargs: it is not a mapping": {
        "messages": [ASK, ANSWER],
        "chat_template_kwargs": [1],
    },
    "unsupported content: type 'image_url'; only text, reasoning and tool calls are supported": {
        "messages": [ASK, CALLING, {"role": "tool", "content": [{"type": "image_url"}]}, ANSWER]
    },
}


@pytest.mark.parametrize("said", UNCERTAIN)
def test_what_is_not_certain_is_named(said: str) -> None:
    with pytest.raises(RowError) as caught:
        chat(UNCERTAIN[said])
    assert str(caught.value) == said


def test_notes_name_what_is_not_read_once_in_the_words_of_the_file(tmp_path: Path) -> None:
    turns = [{"who": "user", "says": "Soup?", "mood": "hungry"}, {"who": "assistant", "says": "Leek."}]
    more = {"empty": "", "nothing": None, "chat_template_kwargs": {"end": False}}
    json_lines(tmp_path / "a.jsonl", [{"id": n, "talk": turns, "score": 0.5, **more} for n in range(3)])
    names = {"messages": "talk", "role": "who", "content": "says"}
    book = recipe(
        tmp_path,
        dataset={"path": "./a.jsonl", "columns": names, "limits": {"duplicates": 1}},
        template={"chat_template": "plain"},
    )
    made = data.prepare(book, data.with_template(book, tokenizer()), tmp_path / "cache", progress=Silent())
    assert [note for note in made.notes if note.startswith("./a.jsonl")] == [
        "./a.jsonl: detected format messages (column 'talk')",
        "./a.jsonl: columns 'id' and 'score' are not read",
        "./a.jsonl: message key 'mood' is not read",
        "./a.jsonl: chat template argument 'end' is not read",
    ]


def refusal(folder: Path, rows: list[dict[str, Any]], **dataset: Any) -> str:
    json_lines(folder / "a.jsonl", rows)
    with pytest.raises(RecipeError) as caught:
        select(recipe(folder, dataset={"path": "./a.jsonl", **dataset}), Silent())
    return str(caught.value.problems[0]).replace(f"{folder}/", "")


def test_a_missing_column_is_named_at_its_own_line_with_the_nearest(tmp_path: Path) -> None:
    rows = [{"question": "Soup?", "answer": "Leek."}]
    columns = {"prompt": "question", "completion": "answr"}
    assert refusal(tmp_path, rows, columns=columns) == (
        "recipe.yaml:11:18: dataset.columns.completion: no column 'answr'; did you mean 'answer'? "
        "the columns are question, answer"
    )
    columns = {"prompt": "question", "completion": "answer"}
    said = refusal(tmp_path, rows, columns=columns, where={"anser": "x"})
    assert "dataset.where.anser: no column 'anser'; did you mean 'answer'? " in said


PROPOSED: dict[str, dict[str, Any]] = {
    "for prompt_completion, add 'columns: {prompt: question, completion: answer}'": {"question": "a", "answer": "b"},
    "for prompt_completion, add 'columns: {prompt: query, completion: response}'": {"query": "a", "response": "b"},
    "for prompt_completion, add 'columns: {prompt: input, completion: output}'": {"input": "a", "output": "b"},
    "for alpaca, add 'columns: {input: context, output: response}'": {"instruction": "a", "context": "b", "response": "c"},
    "for messages, add 'columns: {messages: dialog}'": {"dialog": [ASK, ANSWER]},
    "set format or columns, or write a row template": {"prompt": "a"},
}  # fmt: skip


@pytest.mark.parametrize("said", PROPOSED)
def test_columns_of_other_names_are_proposed(said: str, tmp_path: Path) -> None:
    assert f"no format fits; {said}; the columns are " in refusal(tmp_path, [PROPOSED[said]])
