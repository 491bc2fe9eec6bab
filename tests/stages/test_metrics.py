"""Metrics are shares from 0 to 1 that compare an answer with its reference."""

from __future__ import annotations

import pytest

from loracook.recipe.schema import part_at
from loracook.stages.metrics import metric

CASES = [
    ("exact_match", " 2 soup\n", "2 soup", 1),
    ("exact_match", "2 Soup", "2 soup", 0),
    ("contains", "That is 2 SOUP.", "2 soup", 1),
    ("contains", "That is soup.", "2 soup", 0),
    ("json_match", '```json\n{"b": 1, "a": 2}\n```', '{"a": 2, "b": 1}', 1),
    ("json_match", "no JSON", '{"a": 2}', 0),
    ("regex", "about 12 soups", "exactly 12", 1),
    ("regex", "no number", "no number", 0),
    ("rouge", "two soups", "two soups", 1),
    ("chrf", "two soups", "two soups", 1),
]


@pytest.mark.parametrize(("name", "answer", "reference", "share"), CASES)
def test_an_answer_is_worth(name: str, answer: str, reference: str, share: float) -> None:
    assert metric(name, r"\d+")(answer, reference) == pytest.approx(share)


def test_every_metric_of_the_schema_is_there_and_looked_at() -> None:
    names = (part_at(("evaluate", "metrics", 0)) or {})["enum"]
    assert set(names) == {name for name, *_ in CASES}
