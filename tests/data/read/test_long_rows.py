"""A row of more text than can be tokenized is refused by its place, before it takes the memory for that."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from loracook.data.read import csv_rows, files, formats
from loracook.data.read.formats import ReadOptions
from loracook.data.read.rows import MAX_CHARACTERS, RowError, Text, characters

LONG = "a" * (MAX_CHARACTERS + 1)
SCAN = """
import sys
from loracook.data.read.scan import scan
from loracook.data.read.sources import training
from loracook.errors import RecipeError
from loracook.machine.limits import limit_growth
from loracook.progress import Silent
from loracook.recipe.recipe import load
import pyarrow.parquet

limit_growth(int(sys.argv[2]))
try:
    print(scan(training(load(sys.argv[1]))[0], Silent()).rows)
except RecipeError as error:
    print("\\n".join(problem.message for problem in error.problems))
"""


def scanned(data: Path, budget: int = 900 * 2**20) -> str:
    """What reading a data file ends with, in a process that may take `budget` bytes more."""
    recipe = {
        "version": 1,
        "base_model": {"name_or_path": "org/model"},
        "dataset": {"path": f"./{data.name}"},
        "lora": {"r": 8},
    }
    (data.parent / "r.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-c", SCAN, data.parent / "r.yaml", str(budget)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not ran.returncode, ran.stderr
    return ran.stdout


def one_value_for_many_rows(path: Path, *, store_schema: bool) -> None:
    """Rows of 30 million characters in a file of some kilobytes."""
    indices = pyarrow.array([0] * 35, pyarrow.int32())
    column = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["a" * 30_000_000]))
    table = pyarrow.table({"text": column})
    pyarrow.parquet.write_table(table, path, compression="zstd", store_schema=store_schema)


@pytest.mark.slow
@pytest.mark.parametrize("store_schema", [True, False])
def test_a_value_that_many_rows_share_is_not_unpacked_for_all_of_them(
    store_schema: bool, tmp_path: Path
) -> None:
    one_value_for_many_rows(tmp_path / "a.parquet", store_schema=store_schema)
    first, *_, last = scanned(tmp_path / "a.parquet").splitlines()
    long = "too long: 30,000,000 characters to tokenize; split it, a row has at most 8,388,608"
    assert first == f"row 1 of a.parquet: {long}"
    advice = "fix them or set dataset.on_bad_row: skip"
    assert last == f"35 of 35 rows are bad (35 x too long); {advice}"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_every_reader_names_the_row_that_is_too_long(name: str, tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": LONG}]
    written = {
        "a.jsonl": "\n".join(map(json.dumps, rows)),
        "a.json": json.dumps(rows),
        "a.csv": f"text\na\n{LONG}\n",
        "a.txt": f"a\n\n{LONG}\n",
    }
    (tmp_path / name).write_text(written[name])
    place = "row 3" if name == "a.txt" else "row 2"
    assert scanned(tmp_path / name).startswith(f"{place} of {name}: too long: 8,388,609 characters")


def test_a_book_is_a_row() -> None:
    (row,) = formats.rows({"text": LONG[:-1]}, ReadOptions("text"))
    assert isinstance(row, Text)
    (row,) = formats.rows({"text": LONG}, ReadOptions("text"))
    assert isinstance(row, RowError)


@pytest.mark.parametrize(
    "beside",
    [
        {"tools": [{"name": "a", "parameters": {"type": "object", "properties": {LONG: {}}}}]},
        {"chat_template_kwargs": {"note": [LONG]}},
        {"system": LONG},
    ],
)
def test_everything_that_a_template_gets_counts(beside: dict[str, object]) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (row,) = formats.rows({"messages": messages, **beside}, ReadOptions("messages"))
    assert isinstance(row, RowError)
    assert row.reason == "too long"


def test_what_is_not_read_does_not_count() -> None:
    (row,) = formats.rows({"text": "a", "page": LONG}, ReadOptions("text"))
    assert row == Text("a")


def test_nesting_does_not_matter_to_the_count() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested, 1]
    assert characters({"ab": nested, "c": "def"}) == 100_006


def endless(part: Callable[[], str]) -> Iterator[str]:
    return (part() for _ in itertools.count())


def test_a_csv_row_over_many_lines_ends(tmp_path: Path) -> None:
    cells = itertools.chain(["a,b\n", '"'], endless(lambda: "x" * 2**20 + '\n","\n'))
    with pytest.raises(Exception, match="the quote opened in line 2 is never closed correctly"):
        list(csv_rows.rows(cells, ","))


def test_a_text_without_an_empty_line_is_refused_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\n\n" + (b"some words in a line " * 99 + b"\n") * 33_000)
    said = r"^the text from line 3 of 'a.txt' is over 64 MiB; add empty lines$"
    with pytest.raises(files.FileError, match=said):
        list(files.records(tmp_path / "a.txt", "a.txt"))
