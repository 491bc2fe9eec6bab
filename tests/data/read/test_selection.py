"""Which rows train and which evaluate, how often and in which order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from loracook.data.read.rows import Text
from loracook.data.read.selection import Selection, select
from loracook.errors import RecipeError
from loracook.progress import Silent
from loracook.recipe.derived import most_steps, steps
from tests.data.samples import json_lines, recipe


def chosen(folder: Path, **dataset: Any) -> Selection:
    return select(recipe(folder, dataset=dataset), Silent())


def numbers(rows: Any) -> list[str]:
    return [located.row.text for located in rows if isinstance(located.row, Text)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    json_lines(tmp_path / "a.jsonl", [{"text": f"a{i}", "even": i % 2 == 0} for i in range(10)])
    json_lines(tmp_path / "b.jsonl", [{"text": f"b{i}"} for i in range(4)])
    return tmp_path


def test_all_rows_train_in_their_order(folder: Path) -> None:
    assert numbers(chosen(folder, path="./a.jsonl").train()) == [f"a{i}" for i in range(10)]


def test_where_keeps_the_rows_with_a_value_or_one_of_several(folder: Path) -> None:
    even = chosen(folder, path="./a.jsonl", where={"even": True})
    assert numbers(even.train()) == ["a0", "a2", "a4", "a6", "a8"]
    some = chosen(folder, path="./a.jsonl", where={"text": ["a1", "a2"], "even": [False]})
    assert numbers(some.train()) == ["a1"]


def test_limited_rows_are_drawn_by_the_seed_or_are_the_first(folder: Path) -> None:
    assert numbers(chosen(folder, path="./a.jsonl", rows=3, shuffle=False).train()) == ["a0", "a1", "a2"]
    drawn = numbers(chosen(folder, path="./a.jsonl", rows=3).train())
    assert len(drawn) == 3
    assert drawn == numbers(chosen(folder, path="./a.jsonl", rows=3).train()) != ["a0", "a1", "a2"]


@pytest.mark.parametrize(
    ("wanted", "count"), [({"rows": 3}, 3), ({"fraction": 0.2}, 2), ({"fraction": 0.01}, 1)]
)
def test_held_out_rows_evaluate_and_do_not_train(folder: Path, wanted: dict[str, Any], count: int) -> None:
    found = chosen(folder, path="./a.jsonl", eval=wanted)
    train, evaluation = numbers(found.train()), numbers(found.evaluate())
    assert (len(evaluation), sorted(train + evaluation)) == (count, [f"a{i}" for i in range(10)])


def test_rows_are_held_out_of_every_source_before_they_are_repeated(folder: Path) -> None:
    listed = [{"path": "./a.jsonl"}, {"path": "./b.jsonl", "weight": 3}]
    found = chosen(folder, sources=listed, eval={"rows": 7})
    train, evaluation = Counter(numbers(found.train())), numbers(found.evaluate())
    assert Counter(text[0] for text in evaluation) == {"a": 5, "b": 2}
    assert train == {
        text: 1 if text[0] == "a" else 3
        for text in [*(f"a{i}" for i in range(10)), *(f"b{i}" for i in range(4))]
        if text not in evaluation
    }


def test_evaluation_rows_come_from_a_file_of_their_own(folder: Path) -> None:
    found = chosen(folder, path="./a.jsonl", eval={"path": "./b.jsonl", "rows": 2}, shuffle=False)
    assert (len(numbers(found.train())), numbers(found.evaluate())) == (10, ["b0", "b1"])


def test_more_evaluation_rows_than_there_are_is_an_error(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        chosen(folder, path="./a.jsonl", eval={"rows": 10})
    assert str(caught.value).replace(f"{folder}/", "") == (
        "recipe.yaml:10:12: dataset.eval.rows: cannot hold out 10 of 10 rows; leave at least one for training"
    )


@pytest.mark.parametrize(("weight", "count"), [(1, 4), (2, 8), (2.5, 10), (0.5, 2)])
def test_a_weight_says_how_often_the_rows_are_used(folder: Path, weight: float, count: int) -> None:
    listed = [{"path": "./b.jsonl", "weight": weight}]
    assert len(numbers(chosen(folder, sources=listed).train())) == count


@pytest.mark.parametrize("held", [None, {"rows": 5}, {"fraction": 0.3}, {"path": "./c.jsonl", "rows": 2}])
@pytest.mark.parametrize("train", [{}, {"num_train_epochs": 1.5}, {"dataloader_drop_last": True}])
def test_the_steps_that_a_recipe_foresees_are_those_of_its_rows(
    folder: Path, held: dict[str, Any] | None, train: dict[str, Any]
) -> None:
    json_lines(folder / "c.jsonl", [{"text": "c1"}, {"text": "c2"}])
    listed = [{"path": "./a.jsonl", "rows": 9}, {"path": "./b.jsonl", "rows": 4, "weight": 2.5}]
    dataset = {"sources": listed} | ({"eval": held} if held else {})
    made = recipe(folder, dataset=dataset, train={"per_device_train_batch_size": 2, **train})
    rows = len(list(select(made, Silent()).train()))
    assert most_steps(dict(made.sections)) == steps(made["train"], rows).total


def test_packing_that_splits_long_rows_has_as_many_steps_as_the_data_say(folder: Path) -> None:
    train = {"packing": True, "packing_strategy": "bfd_split"}
    made = recipe(folder, dataset={"path": "./a.jsonl", "rows": 9}, train=train)
    assert most_steps(dict(made.sections)) is None


def test_sources_follow_each_other_or_are_spread_evenly(folder: Path) -> None:
    listed = [{"path": "./a.jsonl", "rows": 6}, {"path": "./b.jsonl", "rows": 2}]
    one_after_the_other = numbers(chosen(folder, sources=listed, shuffle=False).train())
    assert "".join(text[0] for text in one_after_the_other) == "aaaaaabb"
    spread = numbers(chosen(folder, sources=listed, mix="interleave", shuffle=False).train())
    assert "".join(text[0] for text in spread) == "aabaaaba"
