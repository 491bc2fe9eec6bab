"""Reading takes memory for the rows at hand, whatever a small file stands for; more is an error by name."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from loracook.data.read import files
from loracook.data.read.files import FileError
from loracook.data.read.text_files import TOO_LARGE
from loracook.data.tokenize.sandbox import limited
from loracook.machine.limits import growing_at_most

MEGABYTE = 2**20


def table(path: Path, column: pyarrow.Array) -> None:
    pyarrow.parquet.write_table(
        pyarrow.table({"text": column}), path, compression="zstd", store_schema=False, write_statistics=False
    )


def same_texts(path: Path) -> None:
    """1,500 rows of a megabyte each, in a file of some hundred bytes."""
    indices = pyarrow.array(numpy.zeros(1500, dtype=numpy.int32))
    table(path, pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["x" * MEGABYTE])))


def same_texts_in_lists(path: Path) -> None:
    """One row that lists 1,500 texts of a megabyte each."""
    indices = pyarrow.array(numpy.zeros(1500, dtype=numpy.int32))
    texts = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["x" * MEGABYTE]))
    table(path, pyarrow.ListArray.from_arrays(pyarrow.array([0, 1500], pyarrow.int32()), texts))


def nothing_many_times(path: Path) -> None:
    """One row that lists 60 million nulls."""
    many = 60_000_000
    offsets = pyarrow.array([0, many], pyarrow.int32())
    table(path, pyarrow.ListArray.from_arrays(offsets, pyarrow.nulls(many, pyarrow.int8())))


def an_array(path: Path) -> None:
    """10,000 rows of four kilobytes in one array."""
    rows = (json.dumps({"text": f"{number} " * 800}) for number in range(10_000))
    path.write_text("[" + ",\n".join(rows) + "]")


def count(path: Path) -> int:
    return sum(1 for _ in files.records(path, path.name))


def read_within(path: Path, budget: int) -> int:
    """How many rows a file has; raises MemoryError where reading takes more than that many bytes."""
    with growing_at_most(budget):
        return count(path)


@pytest.mark.parametrize(
    ("write", "name", "rows", "budget"),
    [(same_texts, "a.parquet", 1500, 700 * MEGABYTE), (an_array, "a.json", 10_000, 24 * MEGABYTE)],
)
def test_many_rows_are_read_within_the_memory_of_some(
    write: Callable[[Path], None], name: str, rows: int, budget: int, tmp_path: Path
) -> None:
    write(tmp_path / name)
    assert read_within(tmp_path / name, budget) == rows


@pytest.mark.parametrize("write", [same_texts_in_lists, nothing_many_times])
def test_a_row_that_unpacks_without_end_is_an_error_by_name(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 256 * MEGABYTE)
    write(tmp_path / "a.parquet")
    with pytest.raises(FileError, match=r"^'a.parquet' unpacks to a row of more than 256 MiB$"):
        count(tmp_path / "a.parquet")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_rows_far_larger_than_the_others_are_read_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 128 * MEGABYTE)
    texts = pyarrow.array(["x" * (4 * MEGABYTE)] * 60 + ["x"] * 6_000)
    options = {"use_dictionary": False, "write_batch_size": 1, "data_page_size": 1}
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", **options)
    assert count(tmp_path / "a.parquet") == 6_060


def test_a_value_over_several_lines_has_its_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loracook.data.read.json_files.MAX_PARSED_BYTES", 256 * MEGABYTE)
    (tmp_path / "a.json").write_text('{"data": [\n' + ("[]," * 100 + "\n") * 50_000 + "[]]}")
    with pytest.raises(FileError, match=TOO_LARGE):
        count(tmp_path / "a.json")


def test_many_columns_take_time_in_proportion(tmp_path: Path) -> None:
    names = [f"column {number}" for number in range(150_000)]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    assert limited(count, path=tmp_path / "a.csv") == 1


def test_deep_json_is_a_bad_row_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    (record,) = files.records(tmp_path / "a.jsonl", "a.jsonl")
    assert record.fault == "not JSON: nested too deeply"
    (tmp_path / "a.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(FileError, match=r"^'a.json' is not JSON: nested too deeply$"):
        count(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a"}, ', "Expecting value: line 1"),
        ('[{"text": "a"}\n{"text": "b"}]', "Expecting ',' or ']': line 2"),
        ('[{"text": "a"}]\n[{"text": "b"}]', "Extra data: line 2"),
        ('[{"text": "a"},\n\n{"text": b}]', "Expecting value: line 3"),
    ],
)
def test_a_broken_array_is_named_with_its_line(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(FileError, match=f"^'a.json' is not JSON: {said}$"):
        count(tmp_path / "a.json")


def test_entries_of_any_size_and_place_are_read_whole(tmp_path: Path) -> None:
    rows = [{"text": "ü" * size} for size in (1, 2**20 - 20, 3 * 2**20, 5)]
    (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    assert [record.columns for record in files.records(tmp_path / "a.json", "a.json")] == rows
