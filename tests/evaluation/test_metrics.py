"""Metrics are shares from 0 to 1 that compare an answer with its reference."""

from __future__ import annotations

import pytest

from loracook.evaluation.metrics import final_answer, metric
from loracook.recipe.schema import part_at

CASES = [
    ("exact_match", " 2 soup\n", "2 soup", 1),
    ("exact_match", "2 Soup", "2 soup", 0),
    ("contains", "That is 2 SOUP.", "2 soup", 1),
    ("contains", "That is soup.", "2 soup", 0),
    ("json_match", '```json\n{"b": 1, "a": 2}\n```', '{"a": 2, "b": 1}', 1),
    ("json_match", "no JSON", '{"a": 2}', 0),
    ("json_match", "[" * 50_000, '{"a": 2}', 0),
    ("regex", "about 12 soups", "exactly 12", 1),
    ("regex", "no number", "no number", None),
    ("regex", "no number", "12", 0),
    ("json_match", "plain", "plain", None),
    ("json_match", "null", "null", 1),
    ("json_match", '```JSON\n{"a": 2}\n```', '{"a": 2}', 1),
    ("regex", "<think>\n3 or 4?\n</think>\n\n12 soups", "<think>\n\n</think>\n\n12", 1),
    ("regex", "<think>\n12 soups, I guess", "12 soups", 0),
    ("json_match", '<think>\n{}\n</think>\n\n{"a": 2}', '{"a": 2}', 1),
    ("json_match", '<|channel|>final<|message|>{"a": 2}', '{"a":2}', 1),
    ("contains", "<think>2 soup?</think> No.", "2 soup", 0),
    ("exact_match", "<think>a</think>2", "<think>b</think>2", 0),
    ("rouge", "two soups", "two soups", 1),
    ("rouge", "two soup", "two soups", 1),
    ("rouge", "Два супа", "два супа", 1),
    ("rouge", "Два супа", "три супа", 0.5),
    ("rouge", "两碗汤", "两碗汤", 1),
    ("rouge", "两碗", "三碗", 0.5),
    ("rouge", "दो सूप", "दो सूप", 1),
    ("rouge", "café crème", "café creme", 0.5),
    ("rouge", "👍", "👍", 1),
    ("rouge", "→ ∑", "→ ∑", 1),
    ("rouge", "soup", "?!", None),
    ("rouge", "?!", "soup", 0),
    ("chrf", "two soups", "two soups", 1),
]


def test_a_group_that_found_nothing_is_no_match_of_another() -> None:
    choice = metric("regex", r"yes|no|(\d+)")
    assert [choice("yes", "no"), choice("no", "no"), choice("it is 12", "12")] == [0, 1, 1]


@pytest.mark.parametrize(("name", "answer", "reference", "share"), CASES)
def test_an_answer_is_worth(name: str, answer: str, reference: str, share: float | None) -> None:
    assert metric(name, r"\d+")(answer, reference) == pytest.approx(share)


@pytest.mark.parametrize("name", ["exact_match", "contains", "regex", "json_match", "rouge", "chrf"])
@pytest.mark.parametrize("reference", ["", " \n", "<think>cut off"])
def test_an_empty_reference_is_not_scored(name: str, reference: str) -> None:
    if name == "exact_match" and reference.strip():
        return
    assert metric(name, r"\d*")("anything", reference) is None


@pytest.mark.parametrize(
    ("reasoning", "rest"),
    [
        ("<think>\n\n</think>\n\n", "Leek."),
        ("\n<think>3</think>\n", "Leek."),
        ("<|channel>thought\n3\n<channel|>", "Leek."),
        ("<|channel|>analysis<|message|>3<|end|><|start|>assistant<|channel|>final<|message|>", "Leek."),
        ("<|channel|>analysis<|message|>3<|end|><|start|>assistant", "to=functions.cook"),
        ("[THINK]3[/THINK]", "Leek."),
        ("", "Leek."),
    ],
)
def test_the_final_answer_comes_after_the_reasoning(reasoning: str, rest: str) -> None:
    assert final_answer(reasoning + rest) == rest


def test_every_metric_of_the_schema_is_there_and_looked_at() -> None:
    names = (part_at(("evaluate", "metrics", 0)) or {})["enum"]
    assert set(names) == {name for name, *_ in CASES}


def test_rouge_of_plain_english_is_that_of_its_package() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    answer, reference = "The cooks' soups (2 + 3) are boiling_over: 5.", "Cook 5 soups; boil over, it's hot!"
    theirs = RougeScorer(["rougeL"], use_stemmer=True).score(reference, answer)["rougeL"].fmeasure
    assert metric("rouge")(answer, reference) == pytest.approx(theirs)
