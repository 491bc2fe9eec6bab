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
from loracook.data.read import selection, sources
from loracook.data.read.rows import Pair, Text
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import json_lines, recipe

ROWS = [{"prompt": f"What is soup {i}?", "completion": f"Leek {i}."} for i in range(1, 6)]
PAIRS = [Pair(row["prompt"], row["completion"]) for row in ROWS]


def read(folder: Path, **dataset: Any) -> list[Any]:
    """The training rows of a recipe with this data set."""
    return [found.row for found in selection.select(recipe(folder, dataset=dataset), Silent()).train()]


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
        "recipe.yaml:8:11: dataset.path: no data file matches './soup.jsonl'"
    ]
    json_lines(tmp_path / "a.jsonl", ROWS)
    assert refusal(tmp_path, path="./a.jsonl", eval={"path": "./b.jsonl"}) == [
        "recipe.yaml:10:12: dataset.eval.path: no data file matches './b.jsonl'"
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
        "dataset.path: unsupported file type 'a.pkl'; use one of .jsonl, .ndjson, .json, .csv,"
        in refusal(tmp_path, path="./a.pkl")[0]
    )


def test_a_column_that_is_not_there_brings_those_that_are(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", ROWS)
    missing = "the columns are prompt, completion"
    assert refusal(tmp_path, path="./a.jsonl", format="messages") == [
        f"recipe.yaml:9:13: dataset.format: format messages requires a column 'messages'; {missing}"
    ]
    assert refusal(tmp_path, path="./a.jsonl", columns={"prompt": "question"}) == [
        f"recipe.yaml:10:14: dataset.columns.prompt: no column 'question'; {missing}"
    ]
    assert refusal(tmp_path, path="./a.jsonl", where={"lang": "en"}) == [
        f"recipe.yaml:10:12: dataset.where.lang: no column 'lang'; {missing}"
    ]


def test_a_name_that_the_format_does_not_read_is_named(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", [{"question": "Soup?", "answer": "Leek."}])
    misspelt = {"promt": "question", "completion": "answer"}
    assert refusal(tmp_path, path="./a.jsonl", format="prompt_completion", columns=misspelt) == [
        "recipe.yaml:11:13: dataset.columns.promt: format prompt_completion reads no 'promt'; "
        "did you mean 'prompt'?"
    ]
    assert refusal(tmp_path, path="./a.jsonl", columns={"question": "prompt"}) == [
        "recipe.yaml:10:16: dataset.columns.question: no column 'prompt'; write 'prompt: question'"
    ]


def test_an_unreachable_hub_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    (line,) = refusal(tmp_path, path="org/soups")
    assert line.endswith(
        "recipe.yaml:8:11: dataset.path: the hub cannot be reached; "
        "download it once where there is a network, or use local files (./rows.jsonl)"
    )


def test_a_folder_named_like_a_hub_id_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    json_lines(tmp_path / "org/soups/train.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert "the working directory contains 'org/soups'" in refusal(tmp_path, path="org/soups")[0]


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


def test_a_compressed_file_that_holds_far_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((b" " * 1023 + b"\n") * 2**17))
    assert "exceeds the size limit" in refusal(tmp_path, path="./a.jsonl.gz")[0]


def test_rows_that_are_no_utf_8_or_json_are_counted_by_reason(tmp_path: Path) -> None:
    good = json.dumps(ROWS[0]).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, b'{"prompt": "\xff"}', b"{oops", b"[1]", good]))
    book = recipe(tmp_path, dataset={"path": "./a.jsonl", "on_bad_row": "skip"})
    (found,) = selection.select(book, Silent()).scans
    assert (found.rows, found.skipped) == (
        2,
        {
            "not UTF-8": ["row 2 of a.jsonl: not UTF-8: invalid start byte at byte 13"],
            "not JSON": [
                "row 3 of a.jsonl: not JSON: Expecting property name enclosed in double quotes "
                "at character 2",
                "row 4 of a.jsonl: not JSON: a row must be an object with named columns",
            ],
        },
    )
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, path="./a.jsonl")
    assert caught.value.problems[-1].message == (
        "3 of 5 rows are bad (1 x not UTF-8, 2 x not JSON); fix them or set dataset.on_bad_row: skip"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_lone_surrogate_makes_a_bad_row(name: str, tmp_path: Path) -> None:
    bad = [ROWS[0], {"prompt": "Soup?", "completion": "\ud83d"}, ROWS[1]]
    lines = json.dumps(bad) if name == "a.json" else "\n".join(map(json.dumps, bad))
    (tmp_path / name).write_text(lines)
    assert refusal(tmp_path, path=f"./{name}")[0].endswith(f"row 2 of {name}: not UTF-8: a lone surrogate")
    assert read(tmp_path, path=f"./{name}", on_bad_row="skip") == PAIRS[:2]


def test_a_byte_that_is_no_utf_8_makes_a_bad_row_of_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt,completion\nSoup?,Caf\xe9\nWhat is soup 1?,Leek 1.\n")
    assert refusal(tmp_path, path="./a.csv")[0].endswith(
        "row 1 of a.csv: not UTF-8: byte 0xe9 in column 'completion'"
    )
    assert read(tmp_path, path="./a.csv", on_bad_row="skip") == PAIRS[:1]


def test_a_fault_in_the_quotes_of_one_line_makes_a_bad_row_of_csv(tmp_path: Path) -> None:
    lines = 'prompt,completion\n\nSoup?,"Leek" pie.\nWhat is soup 1?,Leek 1.\n'
    (tmp_path / "a.csv").write_text(lines)
    assert refusal(tmp_path, path="./a.csv")[0].endswith(
        "row 1 of a.csv: not CSV: ',' expected after '\"' in line 3"
    )
    assert read(tmp_path, path="./a.csv", on_bad_row="skip") == PAIRS[:1]


@pytest.mark.parametrize("rest", ["", 'Soup?,"Potato."\n'])
def test_a_quote_of_csv_that_takes_other_lines_along_ends_the_reading(rest: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\nSoup?,"Leek.\nWhat?,Leek 1.\n' + rest)
    said = "cannot read 'a.csv': the quote opened in line 2 is never closed correctly; close it or double it"
    assert said in refusal(tmp_path, path="./a.csv", on_bad_row="skip")[0]


def test_files_with_the_same_name_are_distinguished(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        json_lines(tmp_path / folder / "rows.jsonl", [ROWS[0], {"prompt": "Soup?"}])
    assert [
        line.rpartition("dataset.path: ")[2] for line in refusal(tmp_path, path="./*/rows.jsonl")[:2]
    ] == [
        "row 2 of a/rows.jsonl: missing column: 'completion'; the columns are prompt",
        "row 2 of b/rows.jsonl: missing column: 'completion'; the columns are prompt",
    ]


def test_the_first_row_may_be_a_bad_one(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", [{"foo": 1}, *ROWS])
    assert read(tmp_path, path="./a.jsonl", on_bad_row="skip") == PAIRS
    assert refusal(tmp_path, path="./a.jsonl")[0].endswith(
        "dataset.path: row 1 of a.jsonl: missing column: 'prompt'; the columns are foo"
    )


def test_rows_for_other_training_are_seen_wherever_they_stand(tmp_path: Path) -> None:
    mixed = [{**ROWS[0], "images": ["a.jpg"]}, *ROWS, {**ROWS[0], "label": False}, {**ROWS[0], "images": []}]
    json_lines(tmp_path / "a.jsonl", mixed)
    assert [line.rpartition("dataset.path: ")[2] for line in refusal(tmp_path, path="./a.jsonl")] == [
        "row 1 of a.jsonl: not for SFT: rows with images are for vision models; loracook trains on text only",
        "row 7 of a.jsonl: not for SFT: rated answers (label) are for KTO; "
        "for SFT on the good ones, where: {label: true}",
        "2 of 8 rows are bad (2 x not for SFT); fix them or set dataset.on_bad_row: skip",
    ]
    assert read(tmp_path, path="./a.jsonl", on_bad_row="skip") == [*PAIRS, PAIRS[0]]
    assert len(read(tmp_path, path="./a.jsonl", where={"label": False})) == 1


def test_rows_of_which_none_can_be_used_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "Caf\xe9?"}')
    assert refusal(tmp_path, path="./a.jsonl")[0].endswith(
        "no readable rows; row 1 of a.jsonl: not UTF-8: invalid continuation byte at byte 16"
    )
    json_lines(tmp_path / "b.jsonl", [{"prompt": "Soup?", "completion": ""}])
    assert refusal(tmp_path, path="./b.jsonl", on_bad_row="skip")[0].endswith(
        "no usable rows; row 1 of b.jsonl: empty message: column 'completion' has no text"
    )


def test_a_filter_on_text_is_written_in_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion,label\nWhat is soup 1?,Leek 1.,1\n")
    assert refusal(tmp_path, path="./a.csv", where={"label": 1})[0].endswith(
        "dataset.where.label: column 'label' is text; put the value in quotes"
    )
    assert read(tmp_path, path="./a.csv", where={"label": "1"}) == PAIRS[:1]


def test_broken_files_are_refused_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[{]")
    assert "'a.json' is not JSON: " in refusal(tmp_path, path="./a.json")[0]
    (tmp_path / "a.json").write_text("[" + "1" * 5000 + "]")
    assert "'a.json' is not JSON: " in refusal(tmp_path, path="./a.json")[0]
    packed = bytearray(gzip.compress(json.dumps(ROWS * 50).encode()))
    packed[20:60] = b"\xff" * 40
    (tmp_path / "b.json.gz").write_bytes(packed)
    assert "cannot read 'b.json.gz': " in refusal(tmp_path, path="./b.json.gz")[0]
    (tmp_path / "a.parquet").write_text("soup")
    assert "'a.parquet' is not Parquet: " in refusal(tmp_path, path="./a.parquet")[0]
    (tmp_path / "a.csv").write_bytes(b"prompt,completi\xf6n\nSoup?,Leek.\n")
    assert "cannot read 'a.csv': " in refusal(tmp_path, path="./a.csv")[0]
    (tmp_path / "a.csv").write_text("prompt,completion,completion\nSoup?,Leek.,Potato.\n")
    said = "cannot read 'a.csv': the header has column 'completion' more than once; rename all but one"
    assert said in refusal(tmp_path, path="./a.csv")[0]
    (tmp_path / "a.csv").write_text('prompt,"completion"s\nSoup?,Leek.\n')
    said = "cannot read 'a.csv': the header is not CSV: ',' expected after '\"' in line 1"
    assert said in refusal(tmp_path, path="./a.csv")[0]
    (tmp_path / "a.jsonl.gz").write_bytes(b"soup")
    assert "cannot read 'a.jsonl.gz': " in refusal(tmp_path, path="./a.jsonl.gz")[0]


def test_files_of_installed_distributions_are_read(tmp_path: Path) -> None:
    assert (
        "the package 'no-such-soup' is not installed; run: pip install no-such-soup"
        in (refusal(tmp_path, path="package://no-such-soup/rows.jsonl")[0])
    )
    assert "has no file 'soup.jsonl'" in refusal(tmp_path, path="package://trl/soup.jsonl")[0]


def test_what_comes_from_the_hub_is_named_once_evaluation_included(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", ROWS)
    local = {"path": "json", "data_files": "./a.jsonl"}
    assert data.hub_datasets(recipe(tmp_path, dataset=local)) == ()
    mixed = {"sources": [local, {"path": "org/soups"}], "eval": {"path": "org/stews", "split": "test"}}
    assert data.hub_datasets(recipe(tmp_path, dataset=mixed)) == ("org/soups", "org/stews")
    same = {"path": "org/soups", "eval": {"split": "test"}}
    assert data.hub_datasets(recipe(tmp_path, dataset=same)) == ("org/soups",)
