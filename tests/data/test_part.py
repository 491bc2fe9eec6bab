"""The part of the rows that a short run trains is the beginning of the order that all rows are trained in."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from accelerate.data_loader import SeedableRandomSampler
from transformers import PreTrainedTokenizerBase

import loracook.data as data
from loracook.data.part import FEW, MOST
from loracook.data.preview import preview
from loracook.errors import RecipeError
from loracook.estimate.batches import count_tokens, largest_batch, planned_steps
from loracook.estimate.rows import prepared_stats
from loracook.progress import Silent
from loracook.recipe.derived import first_rows
from loracook.recipe.recipe import Recipe
from loracook.training.processes import divided
from tests.data.samples import MASKED_ROWS, chat, json_lines, recipe, tokenizer

TOOL = {"type": "function", "function": {"name": "cook", "description": "Cook.", "parameters": {}}}
STEPS, BATCH = 20, 4
TRAIN = {"max_steps": STEPS, "per_device_train_batch_size": BATCH, "max_length": 64}
SEED = 42


def rows(name: str, count: int) -> list[dict[str, Any]]:
    """Chats, of which one in seven is fully masked and one in eleven has tools, which the template refuses."""
    chats = [chat(f"Which {name}, {number}?", f"Leek {number}. " * (number % 9)) for number in range(count)]
    masked = [MASKED_ROWS[0] if number % 7 == 3 else row for number, row in enumerate(chats)]
    return [row | {"tools": [TOOL]} if number % 11 == 5 else row for number, row in enumerate(masked)]


def job(folder: Path, *, dataset: dict[str, Any] | None = None, **train: Any) -> Recipe:
    """A recipe of two sources, the second one with a weight, and its data."""
    for name, count in (("a", 700), ("b", 400), ("c", 10)):
        json_lines(folder / f"{name}.jsonl", rows(name, count))
    sources = [{"path": "./a.jsonl"}, {"path": "./b.jsonl", "weight": 1.5}]
    own = {
        "sources": sources, "mix": "interleave", "on_bad_row": "skip", "eval": {"rows": 30},
        "limits": dict.fromkeys(("truncated", "missing_eos", "fully_masked", "duplicates", "eval_leak"), 1.0),
    }  # fmt: skip
    return recipe(
        folder, dataset=own | (dataset or {}), template={"chat_template": "plain"}, train=TRAIN | train
    )


def ready(book: Recipe) -> PreTrainedTokenizerBase:
    return data.with_template(book, tokenizer())


def whole(book: Recipe) -> data.Prepared:
    return data.prepare(book, ready(book), cache(book), progress=Silent())


def part(book: Recipe, processes: int = 1) -> data.Prepared:
    first = first_rows(dict(book.sections), processes)
    return data.prepare(book, ready(book), cache(book), progress=Silent(), first=first)


def cache(book: Recipe) -> Path:
    return book.file.parent / "cache"


def in_order(rows: data.Prepared) -> list[Any]:
    """The prepared rows in the order of the first epoch, as accelerate draws it."""
    order = list(SeedableRandomSampler(range(len(rows.taken.marks)), data_seed=SEED))
    return [rows.train[number] for number in rows.taken.prepared(order).tolist()]


@pytest.mark.parametrize("dataset", [{}, {"mix": "concatenate"}], ids=str)
def test_a_part_has_the_first_rows_of_all_in_their_order(dataset: dict[str, Any], tmp_path: Path) -> None:
    book = job(tmp_path, dataset=dataset)
    few = part(book)
    everything = whole(book)
    usable = len(everything.taken.marks)
    assert len(few.train) == STEPS * BATCH
    assert len(few.taken.marks) == usable > len(everything.train) > 2 * len(few.train)
    assert in_order(few) == in_order(everything)[: STEPS * BATCH]
    assert list(few.evaluation or []) == list(everything.evaluation or [])
    assert few.key == everything.key


def test_in_the_order_of_the_data_they_are_the_first_ones(tmp_path: Path) -> None:
    book = job(tmp_path, dataset={"shuffle": False})
    assert list(part(book).train) == list(islice(whole(book).train, STEPS * BATCH))


def test_dropped_rows_are_passed_over_and_leave_the_order_of_the_others(tmp_path: Path) -> None:
    book, longer = job(tmp_path), job(tmp_path / "longer", max_length=1024)
    some, more = ([row["input_ids"][:64] for row in in_order(whole(each))] for each in (book, longer))
    left = iter(more)
    assert all(row in left for row in some)
    assert len(some) < len(more)


def test_it_is_the_same_part_out_of_all_rows_that_are_prepared(tmp_path: Path) -> None:
    book = job(tmp_path)
    read = part(book)
    shutil.rmtree(cache(book))
    statistics = whole(book).statistics
    copied = part(book)
    assert (copied.digest, copied.taken) == (read.digest, read.taken)
    assert copied.statistics == statistics
    assert part(book).statistics == statistics


def test_a_damaged_part_is_prepared_again(tmp_path: Path) -> None:
    book = job(tmp_path)
    before = part(book)
    marks = next(cache(book).glob("data/*/taken.bin"))
    marks.write_bytes(marks.read_bytes()[:-1] + b"\1")
    again = part(book)
    assert (again.digest, again.taken) == (before.digest, before.taken)


def test_its_statistics_say_that_they_are_of_a_part(tmp_path: Path) -> None:
    book = job(tmp_path)
    few = part(book)
    usable = len(few.taken.marks)
    assert few.statistics["part"] == {"rows": 80, "of": usable}
    assert few.statistics["rows"]["train"] == 80
    assert few.notes[0] == (
        f"80 of {usable} rows are tokenized, those that train.max_steps trains; "
        "the statistics cover these, loracook preview shows all"
    )
    shown = preview(book, ready(book), cache(book), progress=Silent())
    assert shown.statistics["part"] is None
    assert shown.statistics["rows"]["train"] == len(whole(book).train)


def test_processes_share_the_part_of_one(tmp_path: Path) -> None:
    book = job(tmp_path)
    assert part(divided(book, 2), processes=2).digest == part(book).digest


def test_another_order_or_length_is_another_part_of_the_same_rows(tmp_path: Path) -> None:
    first = part(job(tmp_path))
    for train in ({"max_steps": 21}, {"data_seed": 7}, {"train_sampling_strategy": "sequential"}):
        other = part(job(tmp_path, **train))
        assert other.statistics["part"]
        assert other.digest != first.digest
        assert other.key == first.key


@pytest.mark.parametrize(
    ("dataset", "train"),
    [
        ({}, {"train_sampling_strategy": "group_by_length"}),
        ({}, {"packing": True}),
        ({}, {"max_steps": 200}),
        ({}, {"max_steps": MOST}),
        ({"sources": [{"path": "./a.jsonl"}, {"path": "./b.jsonl"}]}, {"max_steps": 140}),
        ({"sources": [{"path": "./a.jsonl"}, {"path": "./b.jsonl", "rows": 300}]}, {}),
    ],
    ids=str,
)
def test_all_rows_are_prepared_for_another_run(
    dataset: dict[str, Any], train: dict[str, Any], tmp_path: Path
) -> None:
    book = job(tmp_path, dataset=dataset, **train)
    assert FEW == 1000
    assert part(book).statistics["part"] is None
    assert part(book).digest == whole(book).digest


def test_where_too_few_rows_are_trained_all_of_them_are_taken_as_often_as_needed(tmp_path: Path) -> None:
    book = job(tmp_path, dataset={"eval": {"path": "./c.jsonl"}})
    json_lines(tmp_path / "a.jsonl", [chat("Which?", "Leek."), *MASKED_ROWS[:1] * 1100])
    json_lines(tmp_path / "b.jsonl", rows("b", 20))
    read = part(book)
    assert read.statistics["part"] is None
    assert len(read.train) == read.taken.per_epoch < STEPS * BATCH
    shutil.rmtree(cache(book))
    assert list(whole(book).train) == list(read.train)
    assert part(book).digest == read.digest


def test_a_plan_of_a_part_is_that_of_all_rows(tmp_path: Path) -> None:
    book = job(tmp_path)
    found = []
    for rows in (part(book), whole(book)):
        stats = prepared_stats(book, rows)
        planned = planned_steps(book, stats)
        assert planned
        batch = largest_batch(book, stats)
        texts = [rows.train[number] for number in batch.rows]
        found.append((stats.exact, planned.total, count_tokens(book, stats, planned), batch.length, texts))
    assert found[0] == found[1]
    assert found[0][0]


def test_the_preview_s_rows_are_those_of_all(tmp_path: Path) -> None:
    book = job(tmp_path)
    part(book)
    shown = preview(book, ready(book), cache(book), progress=Silent(), rows=5).rows
    ids = [[token.id for token in row.tokens if token.state != "truncated"] for row in shown]
    assert [each for each in ids if each] == [
        row["input_ids"] for row in islice(whole(book).train, sum(map(bool, ids)))
    ]


def test_where_most_rows_are_dropped_all_are_looked_at_once(tmp_path: Path) -> None:
    masked = [MASKED_ROWS[0]] * 1500
    json_lines(tmp_path / "few.jsonl", [*masked, *rows("leek", 3), *masked])
    json_lines(tmp_path / "none.jsonl", masked)

    def one_row(name: str) -> data.Prepared:
        sources = [{"path": f"./{name}.jsonl"}, {"path": "./none.jsonl"}]
        dataset = {"sources": sources, "eval": {"path": "./c.jsonl"}}
        return part(job(tmp_path, dataset=dataset, max_steps=1, per_device_train_batch_size=1))

    first, again = one_row("few"), one_row("few")
    assert (len(first.train), first.digest) == (1, again.digest)
    assert first.statistics["flaws"]["fully_masked"]["rows"] > 4000
    with pytest.raises(RecipeError, match="no training row has a token in the loss"):
        one_row("none")
