"""Rows are read from files of every kind, and what is not there is said where the recipe names it."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import loracook.data as data
from loracook.data import selection, sources
from loracook.data.rows import Pair, Text
from loracook.errors import RecipeError
from tests.data.kitchen import json_lines, recipe

ROWS = [{"prompt": f"What is soup {i}?", "completion": f"Leek {i}."} for i in range(1, 6)]
PAIRS = [Pair(row["prompt"], row["completion"]) for row in ROWS]


def read(folder: Path, **dataset: Any) -> list[Any]:
    """The training rows of a recipe with this data set."""
    return [found.row for found in selection.select(recipe(folder, dataset=dataset)).train()]


def refusal(folder: Path, **dataset: Any) -> list[str]:
    """What is said of a data set that cannot be used, without the folder's name."""
    with pytest.raises(RecipeError) as caught:
        read(folder, **dataset)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_json_lines_json_csv_tsv_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    for name, mark in (("c.csv", ","), ("d.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=mark)
            writer.writeheader()
            writer.writerows(ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "e.parquet")
    names = ["a.jsonl", "b.json", "c.csv", "d.tsv", "e.parquet"]
    assert {name: read(tmp_path, path=f"./{name}") for name in names} == dict.fromkeys(names, PAIRS)


def test_compressed_files_are_read_through(tmp_path: Path) -> None:
    plain = json_lines(tmp_path / "a.jsonl", ROWS).read_bytes()
    for module, suffix in ((gzip, "gz"), (bz2, "bz2"), (lzma, "xz")):
        (tmp_path / f"a.jsonl.{suffix}").write_bytes(module.compress(plain))
        assert read(tmp_path, path=f"./a.jsonl.{suffix}") == PAIRS


def test_a_folder_a_pattern_and_a_list_of_files_are_read_in_order(tmp_path: Path) -> None:
    json_lines(tmp_path / "rows/b.jsonl", ROWS[3:])
    json_lines(tmp_path / "rows/a.jsonl", ROWS[:3])
    json_lines(tmp_path / "rows/.hidden.jsonl", ROWS)
    assert read(tmp_path, path="./rows") == PAIRS
    assert read(tmp_path, path="./rows/*.jsonl") == PAIRS
    assert read(tmp_path, path="./rows", data_files=["b.jsonl"]) == PAIRS[3:]
    assert read(tmp_path, path="json", data_files=["./rows/a.jsonl", "./rows/b.jsonl"]) == PAIRS


def test_text_files_have_a_row_for_each_paragraph(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Leek.\nPotato.\n\n\nCarrot.\n")
    assert read(tmp_path, path="./a.txt") == [Text("Leek.\nPotato."), Text("Carrot.")]


def test_a_missing_file_is_named_where_the_recipe_does(tmp_path: Path) -> None:
    assert refusal(tmp_path, path="./soup.jsonl") == [
        "recipe.yaml:8:11: dataset.path: there is no data file './soup.jsonl'"
    ]
    json_lines(tmp_path / "a.jsonl", ROWS)
    assert refusal(tmp_path, path="./a.jsonl", eval={"path": "./b.jsonl"}) == [
        "recipe.yaml:10:12: dataset.eval.path: there is no data file './b.jsonl'"
    ]


def test_files_outside_the_recipe_s_folder_are_refused(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/link.jsonl").symlink_to(tmp_path / "a.jsonl")
    assert "outside" in refusal(tmp_path / "inside", path="./link.jsonl")[0]
    assert "outside" in refusal(tmp_path / "inside", path="./*.jsonl")[0]


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"x")
    assert (
        "dataset.path: 'a.pkl' is none of .jsonl, .ndjson, .json, .csv,"
        in refusal(tmp_path, path="./a.pkl")[0]
    )


def test_a_column_that_is_not_there_brings_those_that_are(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", ROWS)
    missing = "the columns are prompt, completion"
    assert refusal(tmp_path, path="./a.jsonl", format="messages") == [
        f"recipe.yaml:9:13: dataset.format: messages needs a column 'messages'; {missing}"
    ]
    assert refusal(tmp_path, path="./a.jsonl", columns={"prompt": "question"}) == [
        f"recipe.yaml:9:3: dataset.columns: no column 'question' to read as 'prompt'; {missing}"
    ]
    assert refusal(tmp_path, path="./a.jsonl", where={"lang": "en"}) == [
        f"recipe.yaml:9:3: dataset.where: no column 'lang'; {missing}"
    ]


def test_an_unreachable_hub_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert refusal(tmp_path, path="org/soups") == [
        "recipe.yaml:8:11: dataset.path: the hub cannot be reached; "
        "download it once where there is a network, or name local files (./rows.jsonl)"
    ]


def test_a_folder_named_like_a_hub_id_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    json_lines(tmp_path / "org/soups/train.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert "the working folder holds a 'org/soups', too" in refusal(tmp_path, path="org/soups")[0]


def test_every_local_file_that_decides_the_rows_is_listed(tmp_path: Path) -> None:
    json_lines(tmp_path / "rows/a.jsonl", ROWS)
    json_lines(tmp_path / "b.jsonl", ROWS)
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    book = recipe(
        tmp_path,
        dataset={"sources": [{"path": "./rows"}], "eval": {"path": "./b.jsonl"}},
        template={"chat_template": "./chat.jinja", "loss": "last_turn"},
    )
    assert [path.relative_to(tmp_path) for path in data.files(book)] == [
        Path("rows/a.jsonl"),
        Path("b.jsonl"),
        Path("chat.jinja"),
    ]
    assert [source.local for source in sources.training(book)] == [True]
