"""Tasks of a recipe's own: what becomes of each row, and rows that do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.errors import RecipeError
from loracook.evaluation.own_tasks import tasks_of
from loracook.recipe.kept import kept
from loracook.recipe.recipe import Recipe

ROW = {
    "question": "Which soup?",
    "answer": "leek",
    "right": 1,
    "answers": ["pea", "leek"],
    "n": 3,
    "none": None,
}
WRITE = {"task": "write", "doc_to_text": "{{question}}\nAnswer:", "doc_to_target": " {{ answer }} "}
CHOOSE = {
    "task": "choose",
    "output_type": "multiple_choice",
    "doc_to_text": "question",
    "doc_to_target": "right",
    "doc_to_choice": "answers",
}


def recipe_of(folder: Path, task: dict[str, Any], rows: Sequence[Any] = (ROW,), **section: Any) -> Recipe:
    """A recipe with one task, whose rows are in a file."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sections = {
        "version": 1,
        "name": "soup",
        "base_model": {"name_or_path": "org/model"},
        "dataset": {"path": "org/rows"},
        "lora": {"r": 8},
        "lm_eval": {"tasks": [task | {"dataset_path": "./rows.jsonl"}], **section},
    }
    (folder / "recipe.yaml").write_text(json.dumps(sections), "utf-8")
    return loracook.load(folder / "recipe.yaml")


def docs(folder: Path, task: dict[str, Any], *rows: Any, **section: Any) -> list[dict[str, Any]]:
    return list(tasks_of(recipe_of(folder, task, rows or (ROW,), **section))[0].docs())


def test_a_row_is_rendered_before_lm_eval_sees_it(tmp_path: Path) -> None:
    assert docs(tmp_path, WRITE) == [{"text": "Which soup?\nAnswer:", "target": "leek"}]
    hostile = ROW | {"question": "{{ 7 * 7 }}{% raw %}", "answer": "{{answer}}"}
    assert docs(tmp_path, WRITE, hostile) == [
        {"text": "{{ 7 * 7 }}{% raw %}\nAnswer:", "target": "{{answer}}"}
    ]


@pytest.mark.parametrize(
    ("changes", "row", "right", "choices"),
    [
        ({}, {}, 1, ["pea", "leek"]),
        ({"doc_to_target": "answer"}, {}, 1, ["pea", "leek"]),
        ({"doc_to_target": "{{answer}}"}, {}, 1, ["pea", "leek"]),
        ({"doc_to_target": "{{right}}"}, {}, 1, ["pea", "leek"]),
        ({"doc_to_target": "right"}, {"right": "0"}, 0, ["pea", "leek"]),
        ({"doc_to_target": "right"}, {"right": "2", "answers": ["1", "2"]}, 1, ["1", "2"]),
        ({"doc_to_choice": ["no", "yes"]}, {}, 1, ["no", "yes"]),
    ],
)
def test_the_right_choice_is_named_or_numbered(
    changes: dict[str, Any], row: dict[str, Any], right: int, choices: list[str], tmp_path: Path
) -> None:
    assert docs(tmp_path, CHOOSE | changes, ROW | row) == [
        {"text": "Which soup?", "target": right, "choices": choices}
    ]


@pytest.mark.parametrize(
    ("task", "row", "key", "fault"),
    [
        (WRITE | {"doc_to_text": "{{questions}}"}, ROW, "doc_to_text", "no column 'questions'; name one that is there"),
        (WRITE | {"doc_to_text": "none"}, ROW, "doc_to_text", "neither text nor a number; name another column"),
        (WRITE | {"doc_to_text": "{{answers}}"}, ROW, "doc_to_text", "neither text nor a number; name another column"),
        (WRITE, ROW | {"answer": ""}, "doc_to_target", "empty; remove the row"),
        (CHOOSE | {"doc_to_choice": "answer"}, ROW, "doc_to_choice", "no list of two texts or more; name another column"),
        (CHOOSE, ROW | {"answers": ["pea"]}, "doc_to_choice", "no list of two texts or more; name another column"),
        (CHOOSE, ROW | {"answers": ["pea", 3]}, "doc_to_choice", "no list of two texts or more; name another column"),
        *(
            (CHOOSE, ROW | {"right": right}, "doc_to_target", "neither a choice nor the number of one, from 0; name another column")
            for right in (2, -1, "-1", "²", "9" * 5000, True, 1.0, None, [1], {"a": 1}, "bean")
        ),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named_by_its_key(
    task: dict[str, Any], row: dict[str, Any], key: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        docs(tmp_path, task, ROW, row)
    (problem,) = error.value.problems
    number = 1 if row is ROW else 2
    assert problem.path == ("lm_eval", "tasks", 0, key)
    assert problem.message == f"row {number} of rows.jsonl: {fault}"


def test_a_file_that_is_no_rows_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, WRITE)
    (tmp_path / "rows.jsonl").write_text('{"question": "a"')
    with pytest.raises(RecipeError, match=r"row 1 of rows.jsonl"):
        list(tasks_of(recipe)[0].docs())
    os.remove(tmp_path / "rows.jsonl")
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(RecipeError, match="not a regular file"):
        list(tasks_of(recipe)[0].docs())


def test_more_solved_examples_than_other_rows_are_refused(tmp_path: Path) -> None:
    assert len(docs(tmp_path, WRITE, ROW, ROW, num_fewshot=1)) == 2
    with pytest.raises(RecipeError, match="1 rows are too few"):
        docs(tmp_path, WRITE, ROW, num_fewshot=1)


def test_the_folder_of_the_stage_follows_the_rows_and_the_section_alone(tmp_path: Path) -> None:
    def folders(*arguments: Any, **section: Any) -> dict[str, str]:
        recipe = recipe_of(tmp_path, *arguments, **section)
        return {stage.name: stage.digest for stage in loracook.plan(recipe, tmp_path / "runs").stages}

    first = folders(WRITE)
    assert set(first) == {"train", "lm_eval"}
    for other in (folders(WRITE, [ROW, ROW]), folders(WRITE | {"task": "b"}), folders(WRITE, limit=5)):
        assert (other["train"], other["lm_eval"] == first["lm_eval"]) == (first["train"], False)
    (tmp_path / "deeper").mkdir()
    recipe_of(tmp_path / "deeper", WRITE)
    assert folders(WRITE) == first


def test_the_plan_names_the_tasks(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, WRITE)
    (_, stage) = loracook.plan(recipe, tmp_path / "runs").stages
    assert stage.summary == "base model vs adapter: write"


def test_the_recipe_in_the_run_folder_finds_the_rows(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, WRITE)
    place = tmp_path / "runs" / "soup" / "lm_eval-00000000"
    place.mkdir(parents=True)
    (place / "recipe.yaml").write_text(kept(recipe, place), "utf-8")
    (tmp_path / "pyproject.toml").touch()
    again = loracook.load(place / "recipe.yaml")
    assert list(tasks_of(again)[0].docs()) == list(tasks_of(recipe)[0].docs())
