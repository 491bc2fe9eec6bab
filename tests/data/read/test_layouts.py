"""Rows are read however a file lays them out where that is certain; otherwise the file is named for what it is."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import loracook.data as data
from loracook.data.read.rows import Pair, Text
from loracook.data.read.selection import select
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import recipe, tokenizer

ROWS = [{"prompt": f"What is soup {i}?", "completion": f"Leek {i}: é."} for i in range(1, 4)]
PAIRS = [Pair(row["prompt"], row["completion"]) for row in ROWS]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, indent=1, ensure_ascii=False)
PRETTY = "\n".join(json.dumps(row, indent=2, ensure_ascii=False) for row in ROWS)
TABLE = "prompt,completion\n" + "".join(f'{row["prompt"]},"{row["completion"]}"\n' for row in ROWS)


def read(folder: Path, name: str, content: str | bytes, **dataset: Any) -> list[Any]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    book = recipe(folder, dataset={"path": f"./{name}", **dataset})
    return [found.row for found in select(book, Silent()).train()]


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(RecipeError) as caught:
        read(folder, name, content)
    return caught.value.problems[0].message


LAYOUTS: dict[str, str | bytes] = {
    "lines.jsonl": LINES,
    "lines.json": LINES,
    "lines.txt": LINES,
    "blank.jsonl": "\n\n" + LINES.replace("\n", "\r\n\r\n"),
    "array.jsonl": ARRAY,
    "array.json": ARRAY,
    "array.txt": ARRAY,
    "minified.jsonl": json.dumps(ROWS),
    "pretty.jsonl": PRETTY,
    "pretty.json": PRETTY,
    "pretty.txt": PRETTY,
    "around.json": json.dumps({"data": ROWS}),
    "around-pretty.json": json.dumps({"version": "1.0", "rows": ROWS}, indent=2),
    "bom.json": codecs.BOM_UTF8 + ARRAY.encode(),
    "wide.json": ARRAY.encode("utf-16"),
    "wide.jsonl": LINES.encode("utf-16"),
    "wider.jsonl": LINES.encode("utf-32"),
    "wide.txt": LINES.encode("utf-16"),
    "wide.csv": TABLE.encode("utf-16"),
    "big-endian.csv": codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"),
    "wide.jsonl.gz": gzip.compress(LINES.encode("utf-16")),
    "bom.csv": codecs.BOM_UTF8 + TABLE.encode(),
    "windows.csv": TABLE.replace("\n", "\r\n"),
    "mac.csv": TABLE.replace("\n", "\r"),
    "mixed.csv": TABLE.replace("\n", "\r\n", 1).replace("?,", "?,", 1),
    "semicolon.csv": TABLE.replace(",", ";"),
    "bar.csv": TABLE.replace(",", "|"),
    "tab.csv": TABLE.replace(",", "\t"),
    "comma.tsv": TABLE,
    "excel.csv": "sep=;\n" + TABLE.replace(",", ";"),
    "excel-unicode.txt.csv": TABLE.replace(",", "\t").encode("utf-16"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_certain_layout_is_read(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, name, LAYOUTS[name]) == PAIRS


def test_what_stands_around_the_rows_is_named_as_not_read(tmp_path: Path) -> None:
    around = {"id": 1, "system": "Be brief.", "empty": None, "rows": ROWS}
    for name, text in (("a.jsonl", json.dumps(around)), ("b.json", json.dumps(around, indent=1))):
        assert read(tmp_path, name, text) == PAIRS
        book = recipe(tmp_path, dataset={"path": f"./{name}"})
        made = data.prepare(
            book, data.with_template(book, tokenizer()), tmp_path / "cache", progress=Silent()
        )
        assert f"./{name}: keys 'id' and 'system' around the rows are not read" in made.notes


def test_one_row_with_a_list_of_turns_is_a_row(tmp_path: Path) -> None:
    said = [{"speaker": "A", "text": "hi"}, {"speaker": "B", "text": "yo"}]
    text = json.dumps({"persona": "P", "dialogue": said})
    advice = "for messages, add 'columns: {messages: dialogue, role: speaker, content: text}'"
    assert advice in refusal(tmp_path, "a.jsonl", text)
    names = {"messages": "dialogue", "role": "speaker", "content": "text"}
    (found,) = read(tmp_path, "a.jsonl", text, columns=names, map_roles={"A": "user", "B": "assistant"})
    assert [message["content"] for message in found.messages] == ["hi", "yo"]


def test_one_object_over_the_whole_file_is_one_row(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Soup?"}, {"role": "assistant", "content": "Leek."}]}
    for text in (json.dumps(row), json.dumps(row, indent=2), '{"messages": [\n' + json.dumps(row)[14:]):
        assert len(read(tmp_path, "a.json", text)) == 1


def test_a_key_given_twice_with_the_same_value_is_harmless(tmp_path: Path) -> None:
    assert read(tmp_path, "a.jsonl", '{"prompt": "x", "prompt": "x", "completion": "y"}') == [Pair("x", "y")]


def test_a_header_with_a_comma_is_separated_by_commas(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "prompt,completion\na;b,c;d\n") == [Pair("a;b", "c;d")]
    assert read(tmp_path, "b.csv", 'prompt;completion\n"a;b";2,5\n') == [Pair("a;b", "2,5")]
    assert read(tmp_path, "c.csv", "text\na;b\n") == [Text("a;b")]


@pytest.mark.parametrize(
    "text", ["[1] A note.\n\n{x} is a set.", "[link](a.md)", "{braces", '["a", "b"]', "[]"]
)
def test_text_that_only_begins_like_json_stays_text(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", text) == [Text(part) for part in text.split("\n\n")]


def test_a_first_row_that_ends_too_early_is_a_bad_row(tmp_path: Path) -> None:
    content = '{"prompt": "x",\n' + LINES
    assert "row 1 of a.jsonl: not JSON: Expecting property name" in refusal(tmp_path, "a.jsonl", content)
    assert read(tmp_path, "a.jsonl", content, on_bad_row="skip") == PAIRS


NAMED: dict[str, tuple[str, str | bytes]] = {
    "'a.json' has several lists of rows, 'train' and 'test'; save each as a file of its own": (
        "a.json",
        json.dumps({"train": ROWS, "test": ROWS}),
    ),
    "'a.json' is not JSON: ": (
        "a.json",
        json.dumps(ROWS)[:-1] + ",]",
    ),
    "'a.jsonl' is not JSON: Expecting ',' delimiter: line 7": (
        "a.jsonl",
        PRETTY.replace('2?",', '2?"'),
    ),
    "row 1 of a.jsonl: not JSON: a comma behind the row; remove it": (
        "a.jsonl",
        LINES.replace("}\n", "},\n"),
    ),
    "'a.csv' is not text, or UTF-16 without a byte order mark; save it as UTF-8": (
        "a.csv",
        TABLE.encode("utf-16-le"),
    ),
    "'a.jsonl' is gzip; rename it to end with .gz": ("a.jsonl", gzip.compress(LINES.encode())),
    "'a.csv' is a zip archive or a spreadsheet; unpack it, or export it as CSV": ("a.csv", b"PK\x03\x04"),
    "'a.json' is Parquet; rename it to end with .parquet": ("a.json", b"PAR1\x15\x04"),
    "'a.jsonl' is a Git LFS pointer; run: git lfs pull": (
        "a.jsonl",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    ),
    "not text: column 'completion' is a non-finite number": (
        "a.jsonl",
        '{"prompt": "x", "completion": NaN}\n',
    ),
    "row 1 of a.jsonl: not JSON: key 'completion' is given twice": (
        "a.jsonl",
        '{"prompt": "x", "completion": "y", "completion": "z"}\n',
    ),
    "not JSON: Exceeds the limit": ("a.jsonl", '{"prompt": "x", "completion": ' + "1" * 5000 + "}\n"),
}


@pytest.mark.parametrize("said", NAMED)
def test_what_is_not_certain_is_named(said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, *NAMED[said])
