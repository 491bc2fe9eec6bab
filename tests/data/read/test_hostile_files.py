"""Data files that would take minutes, all memory or a traceback: refused by name, or read in linear time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loracook.data.read import csv_rows, oasst
from loracook.data.read.messages import conversation
from loracook.data.read.rows import Place, Record, RowError
from loracook.data.read.sources import training
from loracook.data.read.text_files import MOST_VALUES, FileError, lines
from loracook.errors import RecipeError
from loracook.recipe.recipe import load


def source(folder: Path, path: str) -> Any:
    """The source of a recipe that names `path`."""
    dataset = {"path": path, "format": "text"}
    sections = {
        "version": 1,
        "base_model": {"name_or_path": "org/model"},
        "dataset": dataset,
        "lora": {"r": 1},
    }
    (folder / "soup.yaml").write_text(json.dumps(sections))
    return training(load(folder / "soup.yaml"))[0]


def test_a_pattern_descends_twice_at_most(tmp_path: Path) -> None:
    tmp_path.joinpath(*"a" * 30).mkdir(parents=True)
    (tmp_path / "rows.jsonl").write_text('{"text": "hi"}\n')
    with pytest.raises(RecipeError, match=r"has '\*\*' more than 2 times; one is enough"):
        _ = source(tmp_path, "./" + "**/" * 16 + "*.jsonl").files
    assert [file.name for file in source(tmp_path, "./**/*.jsonl").files] == ["rows.jsonl"]


def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / os.fsdecode(b"\xff.jsonl")).write_text('{"text": "hi"}\n')
    with pytest.raises(RecipeError, match="is not UTF-8; rename it"):
        _ = source(tmp_path, "./rows").files


def test_a_header_of_a_million_commas_is_read_in_linear_time() -> None:
    start = time.process_time()
    assert list(csv_rows.rows(["text" + "," * 1_000_000 + "\n", "hello\n"], ",")) == [({"text": "hello"}, "")]
    assert time.process_time() - start < 5


def test_a_thread_of_twenty_thousand_messages_is_read_in_linear_time() -> None:
    def message(number: int) -> Record:
        parent = str(number - 1) if number else None
        columns = {"message_id": str(number), "parent_id": parent, "role": "prompter", "text": "hi"}
        return Record(Place("x", number), columns)

    start = time.process_time()
    [tree] = oasst.trees(map(message, range(20_000)))
    assert tree.columns["message_id"] == "0"
    assert time.process_time() - start < 5


def test_messages_in_a_cycle_are_named_and_those_that_hang_on_it_are_not() -> None:
    parents = {"a": "c", "b": "a", "c": "b", "d": "a", "e": "e", "f": None}
    records = (
        Record(Place("x", 1), {"message_id": name, "parent_id": parent, "role": "prompter", "text": ""})
        for name, parent in parents.items()
    )
    faults = {record.fault.partition("message ")[2] for record in oasst.trees(records) if record.fault}
    assert faults == {f"'{name}' form a cycle" for name in "abce"}


def test_a_line_of_countless_mappings_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"x": [' + b"{}," * MOST_VALUES + b"{}]}\n")
    with pytest.raises(FileError, match="line 1 of 'rows' has more than 1,048,576 brackets"):
        list(lines(tmp_path / "rows.jsonl", "rows"))


def test_a_parquet_map_with_keys_of_several_values_is_refused_by_file(tmp_path: Path) -> None:
    keys = pa.map_(pa.struct([("a", pa.int64())]), pa.int64())
    rows = {"text": ["hello"], "m": pa.array([[({"a": 1}, 2)]], type=keys)}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    with pytest.raises(RecipeError, match=r"'rows\.parquet' has a value that cannot be read"):
        source(tmp_path, "./rows.parquet").head(1)


MESSAGE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([MESSAGE] * 100_001, pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ([(str(number), 1) for number in range(100_001)], pa.map_(pa.string(), pa.int64())),
        ([{"a": [[1]] * 100_001}], pa.list_(pa.struct([("a", pa.list_(pa.list_(pa.int64())))]))),
    ],
)
def test_a_parquet_row_of_countless_mappings_is_refused_before_it_is_unpacked(
    column: Any, kind: pa.DataType, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"messages": pa.array([column] * 3, type=kind)}), tmp_path / "rows.parquet")
    with pytest.raises(RecipeError, match=r"'rows.parquet' has a list of 100,001 mappings; split it"):
        source(tmp_path, "./rows.parquet").head(1)


def test_numbers_are_listed_without_a_limit_of_their_own(tmp_path: Path) -> None:
    rows = {"text": ["hello"], "audio": [[0] * 200_000], "tags": pa.array(["a"]).dictionary_encode()}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    assert len(source(tmp_path, "./rows.parquet").head(1)) == 1


def test_a_row_of_countless_columns_is_bad(tmp_path: Path) -> None:
    rows = [{"text": "hello"}, {"text": "hello"} | {str(number): 1 for number in range(10_000)}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = source(tmp_path, "./rows.jsonl").records()
    assert not first.fault
    assert second.fault == "too many columns: 10,001; remove some, a row has at most 10,000"


def test_a_conversation_of_countless_messages_is_bad() -> None:
    with pytest.raises(
        RowError, match="too many messages: 10,001; split it, a conversation has at most 10,000"
    ):
        conversation([MESSAGE] * 10_001, {})


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "rows.json.gz"])
def test_a_data_file_of_holes_is_not_read_to_its_end(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match="is a file of holes"):
        source(tmp_path, f"./{name}").head(1)
