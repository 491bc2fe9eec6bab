"""Rows of Parquet and of the hub are those of JSON Lines: nulls that a struct column invents are not data."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from loracook.data.read.rows import Chat, Row
from loracook.data.read.selection import select
from loracook.progress import Silent
from tests.data.samples import json_lines, recipe


def conversed(name: str, arguments: dict[str, Any], **system: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {key: {"type": "string"} for key in arguments}}
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    messages = [
        {"role": "system", "content": "Be brief.", **system},
        {"role": "user", "content": f"{name}?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "One."},
    ]
    return {
        "messages": messages,
        "tools": [{"type": "function", "function": {"name": name, "parameters": schema}}],
    }


ROWS = [
    conversed("weather", {"city": "Oslo"}),
    conversed("price", {"item": "soup", "where": {"town": "Oslo"}, "sizes": [{"ml": 1}, {"kind": "big"}]}),
    conversed("time", {}),
]


def read(folder: Path, **dataset: Any) -> list[Row]:
    return [found.row for found in select(recipe(folder, dataset=dataset), Silent()).train()]


def test_parquet_and_the_hub_hold_the_rows_of_json_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_lines(tmp_path / "rows.jsonl", ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    written = read(tmp_path, path="./rows.jsonl")
    assert written == read(tmp_path, path="./rows.parquet")
    listed = datasets.Dataset.from_list(ROWS)
    for rows in (
        listed,
        listed.to_iterable_dataset(),
        datasets.IterableDataset.from_generator(lambda: iter(listed)),
    ):
        monkeypatch.setattr("datasets.load_dataset", lambda *_, rows=rows, **__: rows)
        assert written == read(tmp_path, path="org/rows")


def test_a_null_in_json_lines_stays(tmp_path: Path) -> None:
    tool = {"name": "f", "parameters": {"properties": {"a": {"default": None, "enum": [None, 1]}}}}
    json_lines(tmp_path / "rows.jsonl", [conversed("f", {"city": None}) | {"tools": [tool]}])
    (row,) = read(tmp_path, path="./rows.jsonl")
    assert isinstance(row, Chat)
    assert row.messages[2]["tool_calls"][0]["function"]["arguments"] == {"city": None}
    assert row.tools[0]["function"] == tool


def test_a_null_in_a_list_or_in_arrow_s_json_stays(tmp_path: Path) -> None:
    tool = {"name": "f", "parameters": {"enum": [None, "a"]}}
    kwargs = pyarrow.array(['{"a": null}'], pyarrow.string()).cast(pyarrow.json_())
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    arrays = {"messages": [turns], "tools": [[tool]], "chat_template_kwargs": kwargs}
    pyarrow.parquet.write_table(pyarrow.table(arrays), tmp_path / "rows.parquet")
    (row,) = read(tmp_path, path="./rows.parquet")
    assert isinstance(row, Chat)
    assert (row.tools[0]["function"], row.template_kwargs) == (tool, {"a": None})


def test_maps_dates_and_decimals_are_what_json_would_hold(tmp_path: Path) -> None:
    arguments = pyarrow.map_(pyarrow.string(), pyarrow.string())
    call = pyarrow.struct([("name", pyarrow.string()), ("arguments", arguments)])
    message = pyarrow.struct(
        [("role", pyarrow.string()), ("content", pyarrow.string()), ("tool_calls", pyarrow.list_(call))]
    )
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [{"name": "f", "arguments": [("city", "Oslo")]}]},
    ]
    table = pyarrow.table({"messages": pyarrow.array([turns], pyarrow.list_(message))})
    pyarrow.parquet.write_table(table, tmp_path / "calls.parquet")
    (row,) = read(tmp_path, path="./calls.parquet")
    assert isinstance(row, Chat)
    assert row.messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    facts = {
        "day": date(2026, 1, 2),
        "at": datetime(2026, 1, 2, 3, 4),
        "hour": time(5, 6),
        "price": Decimal("1.50"),
    }
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([facts]), tmp_path / "facts.parquet")
    template = {"prompt": "{day} {at}", "completion": "{hour} {price}"}
    book = recipe(tmp_path, dataset={"path": "./facts.parquet"}, template=template)
    (found,) = select(book, Silent()).train()
    assert json.dumps([found.row.prompt, found.row.completion]) == (  # type: ignore[union-attr]
        '["2026-01-02 2026-01-02T03:04:00", "05:06:00 1.50"]'
    )
