"""Rows that are streamed are prepared like the others, as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import IterableDataset

import loracook.data as data
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import chat, json_lines, recipe, tokenizer

ROWS = [chat(f"Which soup, {i}?", f"Leek {i}.") for i in range(30)]


def prepared(folder: Path, *, train: dict[str, Any] | None = None, **dataset: Any) -> data.Prepared:
    book = recipe(
        folder,
        dataset={"path": "./a.jsonl", "shuffle": False, **dataset},
        template={"chat_template": "plain"},
        train={"max_length": 64, "max_steps": 2, **(train or {})},
    )
    return data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    json_lines(tmp_path / "a.jsonl", ROWS)
    json_lines(tmp_path / "b.jsonl", [chat(f"And {i}?", "Yes.") for i in range(3)])
    return tmp_path


def test_streamed_rows_are_those_that_would_be_written(folder: Path) -> None:
    streamed, written = prepared(folder, streaming=True), prepared(folder)
    assert isinstance(streamed.train, IterableDataset)
    assert list(streamed.train) == list(written.train)
    assert streamed.notes[0] == "rows are streamed; the statistics cover the first 30"


def test_streamed_rows_are_packed(folder: Path) -> None:
    packing = {"packing": True}
    streamed = prepared(folder, streaming=True, train=packing)
    assert list(streamed.train) == list(prepared(folder, train=packing).train)


def test_streamed_rows_are_shuffled_in_a_buffer_by_the_seed(folder: Path) -> None:
    first, again = (list(prepared(folder, streaming=True, shuffle=True).train) for _ in range(2))
    in_order = list(prepared(folder).train)
    assert first == again != in_order
    assert sorted(map(str, first)) == sorted(map(str, in_order))


def test_the_first_streamed_rows_evaluate_or_those_of_another_file_do(folder: Path) -> None:
    held = prepared(folder, streaming=True, eval={"rows": 4})
    assert held.evaluation is not None
    assert [*held.evaluation, *held.train] == list(prepared(folder).train)
    own = prepared(folder, streaming=True, eval={"path": "./b.jsonl"})
    assert (own.evaluation and len(own.evaluation), len(list(own.train))) == (3, 30)


def test_streamed_sources_take_turns(folder: Path) -> None:
    book = recipe(
        folder,
        dataset={
            "sources": [{"path": "./a.jsonl", "rows": 4}, {"path": "./b.jsonl"}],
            "mix": "interleave",
            "streaming": True,
            "shuffle": False,
        },
        template={"chat_template": "plain"},
        train={"max_steps": 2},
    )
    made = data.with_template(book, tokenizer())
    texts = [
        made.decode(row["input_ids"])[6:9]
        for row in data.prepare(book, made, folder / "cache", progress=Silent()).train
    ]
    assert texts == ["Whi", "And", "Whi", "And", "Whi", "And", "Whi"]


def test_a_bad_row_beyond_the_first_ones_ends_the_stream(folder: Path) -> None:
    json_lines(folder / "a.jsonl", [*ROWS * 70, chat("Unanswered?")])
    with pytest.raises(RecipeError) as caught:
        list(prepared(folder, streaming=True).train)
    assert caught.value.problems[0].message == "row 2101 of a.jsonl: no assistant message: the roles are user"
    skipped = prepared(folder, streaming=True, on_bad_row="skip")
    assert len(list(skipped.train)) == 2100


def test_the_first_rows_of_every_streamed_source_are_looked_at(folder: Path) -> None:
    json_lines(folder / "many.jsonl", [chat(f"Which soup, {i}?", f"Leek {i}.") for i in range(2100)])
    json_lines(folder / "long.jsonl", [chat(f"And {i}?", "Yes. " * 60) for i in range(20)])
    sources = [{"path": "./many.jsonl"}, {"path": "./long.jsonl"}]
    book = recipe(
        folder,
        dataset={"sources": sources, "streaming": True, "mix": "concatenate"},
        template={"chat_template": "plain"},
        train={"max_length": 64, "max_steps": 2},
    )
    found = data.prepare(
        book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent()
    ).statistics
    assert [source["used_rows"] for source in found["sources"]] == [1000, 20]
    assert found["flaws"]["truncated"]["rows"] == 20
