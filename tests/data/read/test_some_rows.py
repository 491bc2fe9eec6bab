"""Reading only the records whose rows are used gives the rows that reading all of them and choosing gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from loracook.data.read.rows import EVERY
from loracook.data.read.scan import usable_rows
from loracook.data.read.selection import LocatedRow, SelectedRows, Selection, select
from loracook.progress import Silent
from tests.data.samples import chat, json_lines, recipe

CHATS = [chat(f"Which soup, {i}?", f"Leek {i}.") if i % 4 else chat(f"Which {i}?") for i in range(40)]
"""Every fourth one has no answer."""
TEXTS = [{"text": f"Soup {i}." if i % 5 else " "} for i in range(40)]


def with_faults(path: Path) -> None:
    lines = [json.dumps(row) for row in CHATS]
    lines[3:3], lines[9:9], lines[20:20] = ["", "  "], ['{"messages": '], ["[]"]
    path.write_text("\n".join(lines), "utf-8")


def in_two_files(path: Path) -> None:
    json_lines(path / "a.jsonl", CHATS[:15])
    (path / "b.json").write_text(json.dumps(CHATS[15:]), "utf-8")


def around_rows(path: Path) -> None:
    path.write_text(json.dumps({"version": 2, "rows": TEXTS}, indent=1), "utf-8")


def cells(path: Path) -> None:
    rows = (f"{row['text']},{i}{',more' if i % 7 == 0 else ''}\n" for i, row in enumerate(TEXTS))
    path.write_text("text,number\n" + "".join(rows), "utf-8")


def paragraphs(path: Path) -> None:
    path.write_bytes(b"\n\n".join(b"Soup \xff" if i % 6 == 0 else b"Soup %d\nhot" % i for i in range(40)))


def table(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TEXTS), path)


def message(number: int, replies: int, **more: Any) -> dict[str, Any]:
    """A question with so many answers, as OpenAssistant nests them."""
    answers = [{"text": f"Leek {i}.", "role": "assistant"} for i in range(replies)]
    return {"text": f"Which soup, {number}?", "role": "prompter", "replies": answers, **more}


def nested_trees(path: Path) -> None:
    json_lines(path, ({"message_tree_id": str(i), "prompt": message(i, i % 4)} for i in range(20)))


def flat_messages(path: Path) -> None:
    questions = [
        {"message_id": f"q{i}", "parent_id": None, "text": f"Which, {i}?", "role": "prompter"}
        for i in range(12)
    ]
    answers = [
        {"message_id": f"a{i}-{n}", "parent_id": f"q{i}", "text": f"Leek {n}.", "role": "assistant"}
        for i in range(14)
        for n in range(i % 4)
    ]
    json_lines(path, answers + questions)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "a.jsonl": with_faults,
    "two": in_two_files,
    "b.json": around_rows,
    "c.csv": cells,
    "d.txt": paragraphs,
    "e.parquet": table,
    "f.jsonl": nested_trees,
    "g.jsonl": flat_messages,
}


def chosen(folder: Path, **dataset: Any) -> Selection:
    return select(recipe(folder, dataset={"on_bad_row": "skip", **dataset}), Silent())


def chosen_of_all(part: Any) -> Iterator[LocatedRow]:
    """The rows of a part, out of all usable rows of its source."""
    assert isinstance(part, SelectedRows)
    for number, uses in enumerate(part.passes):
        every = list(usable_rows(part.source, EVERY))
        for use, (place, row) in zip(uses, every, strict=True):
            if use == part.use:
                yield LocatedRow(part.number, place, row, repeated=number > 0)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("limits", [{"rows": 3}, {"rows": 9, "weight": 2.5}, {"weight": 0.3}, {}])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_rows_that_are_used_are_those_of_reading_all(
    tmp_path: Path, name: str, limits: dict[str, Any], shuffle: bool
) -> None:
    LAYOUTS[name](tmp_path / name)
    found = chosen(tmp_path, sources=[{"path": f"./{name}", **limits}], shuffle=shuffle, eval={"rows": 2})
    for part in (*found.training, *found.evaluation):
        rows = list(part)
        assert rows == list(chosen_of_all(part))
        assert len(rows) == len(part) > 0


def test_layouts_skip_records_and_take_several_rows_of_one(tmp_path: Path) -> None:
    of_records = set[int]()
    for name, write in LAYOUTS.items():
        write(tmp_path / name)
        (result,) = chosen(tmp_path, path=f"./{name}").scans
        assert len(set(result.rows_in)) > 1
        assert sum(result.rows_in) == result.rows
        of_records.update(result.rows_in)
    assert of_records == {0, 1, 2, 3}


def test_a_record_whose_row_is_not_used_is_not_even_parsed(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", (chat(f"Which soup, {i}?", "Leek.") for i in range(30)))
    (part,) = chosen(tmp_path, path="./a.jsonl", rows=4).training
    before = list(part)
    used = {located.place.number for located in before}
    lines = path.read_text("utf-8").splitlines()
    # the first two lines show how the file is laid out
    spoilt = (line if number in used or number < 3 else "{" for number, line in enumerate(lines, 1))
    path.write_text("\n".join(spoilt), "utf-8")
    assert list(part) == before
