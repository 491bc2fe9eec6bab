"""The rows that a plan counts are those that the run meets."""

from __future__ import annotations

from pathlib import Path

import pytest

from loracook import data
from loracook.estimate.rows import FEW, row_stats
from tests.data.samples import chat, json_lines, recipe, tokenizer


@pytest.mark.parametrize("rows", [8, FEW + 200])
def test_a_plan_counts_the_evaluation_rows_that_there_are(rows: int, tmp_path: Path) -> None:
    json_lines(tmp_path / "train.jsonl", [chat(f"Which {i}?", f"Leek {i}.") for i in range(rows)])
    json_lines(tmp_path / "eval.jsonl", [chat(f"New {i}?", "Yes.") for i in range(4)])
    book = recipe(
        tmp_path,
        dataset={"path": "./train.jsonl", "eval": {"path": "./eval.jsonl"}},
        template={"chat_template": "plain"},
        evaluate={"rows": 20},
    )
    made = data.with_template(book, tokenizer())
    assert row_stats(book, made, tmp_path / "cache").evaluation == 4
