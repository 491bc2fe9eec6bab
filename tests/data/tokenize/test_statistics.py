"""The statistics of a dataset with planted flaws are exact, and a run over a limit names the longest rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import loracook.data as data
from loracook.data.preview import preview
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe
from tests.data.samples import (
    FLAWED_ROWS,
    MASKED_ROWS,
    SHORT_ROWS,
    chat,
    json_lines,
    planted_flaws,
    recipe,
    tokenizer,
)


@pytest.fixture
def planted(tmp_path: Path) -> Recipe:
    return planted_flaws(tmp_path)


def prepared(book: Recipe, made: Any) -> data.Prepared:
    return data.prepare(book, data.with_template(book, made), book.file.parent / "cache", progress=Silent())


def test_every_planted_flaw_is_counted(planted: Recipe) -> None:
    assert len(FLAWED_ROWS) == 100
    found = prepared(planted, tokenizer())
    flaws = {name: (flaw["rows"], flaw["share"]) for name, flaw in found.statistics["flaws"].items()}
    assert flaws == {
        "truncated": (8, 0.08),
        "missing_eos": (5, 0.05),
        "fully_masked": (3, 0.03),
        "duplicates": (10, 0.1),
        "eval_leak": (2, 0.2),
    }
    assert (len(found.train), found.evaluation and len(found.evaluation)) == (97, 10)
    assert found.statistics["rows"] == {"train": 97, "evaluation": 10}
    assert found.statistics["roles"] == {"user": 100, "assistant": 100}
    assert found.statistics["eos_trained_share"] == pytest.approx(0.92)
    assert sum(found.statistics["lengths"]["histogram"]["rows"]) == 100
    trained = sum(label != -100 for row in found.train for label in row["labels"])
    assert found.statistics["trained_tokens"] == trained
    assert found.statistics["tokens"] == sum(map(len, found.train["input_ids"]))


@pytest.mark.parametrize(
    ("kept", "missing"), [("Leek.<|im_end|>\n", 0), ("Leek.<|im_end|>\n<|im_start|>", 1)]
)
def test_only_an_end_of_turn_token_counts_as_eos(kept: str, missing: int, tmp_path: Path) -> None:
    json_lines(tmp_path / "rows.jsonl", [chat("Which?", "Leek.", "And else?", "No.")])
    made = tokenizer("<|im_start|>", "<|im_end|>")
    limit = len(made(f"<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n{kept}")["input_ids"])
    book = recipe(
        tmp_path,
        dataset={"path": "./rows.jsonl"},
        template={"chat_template": "chatml", "loss": "all"},
        train={"max_length": limit},
    )
    assert prepared(book, made).statistics["flaws"]["missing_eos"]["rows"] == missing


def test_the_longest_rows_over_a_limit_are_named(planted: Recipe) -> None:
    problems = data.over_limits(prepared(planted, tokenizer()).statistics, planted)
    assert {problem.path[-1]: re.findall(r"row (\d+) of", problem.message) for problem in problems} == {
        "truncated": ["6", "7", "8"],
        "missing_eos": ["1", "2", "3"],
        "fully_masked": ["6", "7", "8"],
        "eval_leak": ["1", "2"],
    }
    assert len(problems) == 2 * 4


def test_evaluation_rows_that_are_dropped_are_noted(planted: Recipe) -> None:
    json_lines(planted.file.parent / "eval.jsonl", [*MASKED_ROWS, chat("New?", "Yes.")])
    found = prepared(planted, tokenizer())
    assert found.statistics["rows"]["evaluation"] == 1
    assert (
        "3 evaluation rows have no token in the loss within train.max_length and are dropped" in found.notes
    )


def test_rows_repeated_by_a_weight_are_no_duplicates(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", SHORT_ROWS[:5])
    book = recipe(
        tmp_path,
        dataset={"sources": [{"path": "./a.jsonl", "weight": 3}]},
        template={"chat_template": "plain"},
    )
    found = prepared(book, tokenizer())
    assert (len(found.train), found.statistics["flaws"]["duplicates"]["rows"]) == (15, 0)


def test_the_preview_shows_what_reaches_the_trainer(planted: Recipe) -> None:
    made = tokenizer()
    found = prepared(planted, made)
    shown = preview(planted, made, planted.file.parent / "cache", progress=Silent(), rows=len(FLAWED_ROWS))
    rows = [[token for token in row.tokens if token.state != "truncated"] for row in shown.rows]
    ids = [[token.id for token in row] for row in rows if row]
    labels = [[token.id if token.state == "trained" else -100 for token in row] for row in rows if row]
    assert ids == found.train["input_ids"][:]
    assert labels == found.train["labels"][:]
