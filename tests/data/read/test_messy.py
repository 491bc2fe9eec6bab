"""Messy but real data files: each is read whole, or named as an error of the user; nothing hangs or is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from loracook.data.read.rows import Chat, Pair, Text
from loracook.data.read.scan import scan
from loracook.data.read.selection import select
from loracook.data.read.sources import training
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import json_lines, recipe

PAIR, ANSWER = {"prompt": "Soup?", "completion": "Leek."}, {"role": "assistant", "content": "Leek."}
ASK = {"role": "user", "content": "Soup?"}
READ = [Pair("Soup?", "Leek.")]


def read(folder: Path, path: str, **dataset: Any) -> list[Any]:
    book = recipe(folder, dataset={"path": f"./{path}", **dataset})
    return [found.row for found in select(book, Silent()).train()]


def refusal(folder: Path, path: str, **dataset: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        read(folder, path, **dataset)
    return caught.value.problems[0].message


def chat(folder: Path, row: Any) -> Chat:
    json_lines(folder / "a.jsonl", [row])
    (found,) = read(folder, "a.jsonl")
    assert isinstance(found, Chat)
    return found


def unread(folder: Path, row: Any) -> set[str]:
    json_lines(folder / "a.jsonl", [row])
    found = scan(training(recipe(folder, dataset={"path": "./a.jsonl"}))[0], Silent())
    return {*found.unread_keys, *found.unread_columns}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sources.json", json.dumps({**PAIR, "sources": [{"id": 1}]})),
        ("cr.jsonl", json.dumps(PAIR) + "\r"),
        ("trailing.csv", "prompt,completion,,\nSoup?,Leek.,,\n"),
        ("excess.csv", "prompt,completion\nSoup?,Leek.,,\n"),
        ("spaces.csv", " prompt , completion \nSoup?,Leek.\n"),
        ("index.csv", ",prompt,completion\n0,Soup?,Leek.\n"),
    ],
)
def test_one_row_is_read_as_it_is_meant(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read(tmp_path, name) == READ


def test_rows_of_one_line_are_all_read(tmp_path: Path) -> None:
    for between in ("\r", "", " "):
        (tmp_path / "a.jsonl").write_bytes(between.join([json.dumps(PAIR)] * 3).encode())
        assert read(tmp_path, "a.jsonl") == READ * 3


def test_a_list_beside_a_question_and_its_answer_is_not_the_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps({"question": "Soup?", "answer": "Leek.", "docs": [{"text": "x"}]})
    )
    assert "columns: {prompt: question, completion: answer}" in refusal(tmp_path, "a.json")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", json.dumps({"prompt": ["a", "b"], "completion": ["c", "d"]}), "'a.json' has one list for each column"),
        ("a.csv", "prompt,completion\nSoup?,Leek.,more\n", "more or fewer cells than the header"),
        ("a.jsonl", json.dumps({"messages": None, "text": None}), "no format fits"),
        ("a.jsonl", json.dumps({"messages": [ASK, ANSWER], "tools": ["get"]}), "'tools' lists names"),
        ("a.jsonl", json.dumps({"die frage, laut": "x", "antwort": "y"}), 'prompt: "die frage, laut"'),
        ("a.csv", "", "no readable rows"),
        ("a.csv", ",,\n1,2,3\n", "no "),
        ("a.json", "{}", "no format fits"),
        ("a.json", "[]", "no readable rows"),
        ("a.json", "null", "a row must be an object"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert said in refusal(tmp_path, name)


def table(column: pyarrow.Array) -> pyarrow.Table:
    return pyarrow.table({"prompt": ["Soup?"], "completion": ["Leek."], "more": column})


TABLES: dict[str, Callable[[], pyarrow.Table]] = {
    "such as a date after 9999": lambda: table(pyarrow.array([2**60], pyarrow.timestamp("us"))),
    "or of an unknown time zone": lambda: table(pyarrow.array([0], pyarrow.timestamp("us", "Mars/Base"))),
    "key 'a' is given twice": lambda: table(pyarrow.array(['{"a": 1, "a": 2}'], pyarrow.json_())),
    "has column 'prompt' more than once": lambda: pyarrow.Table.from_arrays(
        [pyarrow.array(["a"]), pyarrow.array(["b"])], names=["prompt", "prompt"]
    ),
}


@pytest.mark.parametrize("said", TABLES)
def test_columns_of_parquet_that_python_cannot_hold_are_named(said: str, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(TABLES[said](), tmp_path / "a.parquet")
    assert said in refusal(tmp_path, "a.parquet")


def test_usual_times_of_parquet_are_no_obstacle(tmp_path: Path) -> None:
    times = pyarrow.array([datetime(2024, 2, 29)], pyarrow.timestamp("us", "Europe/Oslo"))
    pyarrow.parquet.write_table(table(times), tmp_path / "a.parquet")
    assert read(tmp_path, "a.parquet") == READ


@pytest.mark.parametrize("path", ["pipe.jsonl", "*.jsonl", "."])
def test_a_pipe_is_refused_or_passed_over_and_never_waited_for(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    json_lines(tmp_path / "rows/a.jsonl", [PAIR])
    if path == ".":
        assert read(tmp_path, path) == READ
    else:
        assert "is not a regular file" in refusal(tmp_path, path)


@pytest.mark.parametrize("path", ["data", "data/**/*.jsonl", "data/*/*.jsonl", "data/**"])
def test_linked_folders_are_read_once(path: str, tmp_path: Path) -> None:
    json_lines(tmp_path / "kept/a.jsonl", [PAIR])
    (tmp_path / "data/own").mkdir(parents=True)
    (tmp_path / "data/linked").symlink_to("../kept")
    (tmp_path / "data/own/again").symlink_to("..")
    assert read(tmp_path, path) == READ


def test_a_linked_folder_outside_is_refused(tmp_path: Path) -> None:
    json_lines(tmp_path / "outside/a.jsonl", [PAIR])
    (tmp_path / "project/data").mkdir(parents=True)
    (tmp_path / "project/data/linked").symlink_to("../../outside")
    assert "links to a place outside" in refusal(tmp_path / "project", "data")
    (tmp_path / "outside/a.jsonl").unlink()  # nor is it searched
    assert "links to a place outside" in refusal(tmp_path / "project", "data/**/*.jsonl")


def test_a_pattern_that_is_none_is_named(tmp_path: Path) -> None:
    assert "is not a pattern" in refusal(tmp_path, "a**/b.jsonl")


@pytest.mark.parametrize("column", ["Be brief.", " Be brief.\n", [{"type": "text", "text": "Be brief."}]])
def test_a_system_column_and_its_turn_are_one(column: Any, tmp_path: Path) -> None:
    row = {"messages": [ASK, ANSWER], "system": column}
    assert chat(tmp_path, row).messages[0]["content"].strip() == "Be brief."
    if isinstance(column, str):
        row["messages"] = [{"role": "system", "content": "Be brief."}, ASK, ANSWER]
        assert [turn["role"] for turn in chat(tmp_path, row).messages] == ["system", "user", "assistant"]


def test_answers_of_tools_among_the_users_parts_are_tool_turns(tmp_path: Path) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "menu", "input": {"day": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Leek"}]}
    back = {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]}
    read = chat(tmp_path, {"messages": [ASK, {"role": "assistant", "content": [use]}, back, ANSWER]})
    assert [turn["role"] for turn in read.messages] == ["user", "assistant", "tool", "user", "assistant"]
    assert read.messages[2] == {"role": "tool", "content": "Leek", "tool_call_id": "t1"}
    assert not read.unread


@pytest.mark.parametrize("value", ["", None, []])
def test_an_empty_image_is_none(value: object, tmp_path: Path) -> None:
    assert chat(tmp_path, {"messages": [ASK, ANSWER], "image": value})


def test_unread_keys_inside_of_calls_and_parts_are_named(tmp_path: Path) -> None:
    call = {"name": "menu", "arguments": "{}", "score": 1}
    called = {"role": "assistant", "content": None, "function_call": call}
    assert unread(tmp_path, {"messages": [ASK, called]}) == {"function_call.score"}
    parts = {"role": "user", "parts": [{"type": "text", "text": "Soup?", "mood": "sad"}]}
    assert unread(tmp_path, {"messages": [parts, ANSWER]}) == {"content.mood"}


def test_a_single_unnamed_column_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nSoup\n")
    assert read(tmp_path, "a.csv") == [Text("Soup")]
