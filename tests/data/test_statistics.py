"""The numbers of a planted data set are exact, and a run over a limit names the worst rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import loracook.data as data
from loracook.data.preview import as_json, preview
from loracook.errors import dotted
from loracook.recipe.recipe import Recipe
from loracook.views.preview_html import as_html
from loracook.views.preview_text import as_text
from tests.data.kitchen import chat, json_lines, recipe, tokenizer

LIMIT = 64
LONG = [chat(f"Which {i}?", "Leek and potato. " * 20) for i in range(5)]
MASKED = [chat(f"Which of the many soups? {i} " * 20, "Leek.") for i in range(3)]
SHORT = [chat(f"Which soup, {i}?", f"Leek {i}.") for i in range(80)]
TWICE = SHORT[:10]
ROWS = LONG + MASKED + SHORT + TWICE + [chat(f"Last {i}?", "No.") for i in range(2)]


@pytest.fixture
def planted(tmp_path: Path) -> Recipe:
    """100 rows: 5 too long, 3 fully masked once cut, 10 said before; 2 of 10 evaluation rows also train."""
    json_lines(tmp_path / "train.jsonl", ROWS)
    json_lines(tmp_path / "eval.jsonl", [*SHORT[:2], *(chat(f"New {i}?", "Yes.") for i in range(8))])
    return recipe(
        tmp_path,
        dataset={"path": "./train.jsonl", "eval": {"path": "./eval.jsonl"}, "shuffle": False},
        template={"chat_template": "plain"},
        train={"max_length": LIMIT},
    )


def prepared(book: Recipe, made: Any) -> data.Prepared:
    return data.prepare(book, data.with_template(book, made), book.root / "cache")


def test_every_planted_flaw_is_counted(planted: Recipe) -> None:
    assert len(ROWS) == 100
    found = prepared(planted, tokenizer())
    flaws = {name: (flaw["rows"], flaw["share"]) for name, flaw in found.statistics["flaws"].items()}
    assert flaws == {
        "truncated": (8, 0.08),
        "without_stop": (5, 0.05),
        "fully_masked": (3, 0.03),
        "duplicates": (10, 0.1),
        "eval_leak": (2, 0.2),
    }
    assert (len(found.train), found.evaluation and len(found.evaluation)) == (97, 10)
    assert found.statistics["rows"] == {"train": 97, "evaluation": 10}
    assert found.statistics["roles"] == {"user": 100, "assistant": 100}
    assert found.statistics["stop_trained_share"] == pytest.approx(0.92)
    assert sum(found.statistics["lengths"]["histogram"]["rows"]) == 100
    learned = sum(label != -100 for row in found.train for label in row["labels"])
    assert found.statistics["trained_tokens"] == learned
    assert found.statistics["tokens"] == sum(map(len, found.train["input_ids"]))


@pytest.mark.parametrize(
    ("kept", "unstopped"), [("Leek.<|im_end|>\n", 0), ("Leek.<|im_end|>\n<|im_start|>", 1)]
)
def test_only_what_ends_a_turn_is_a_stop(kept: str, unstopped: int, tmp_path: Path) -> None:
    json_lines(tmp_path / "rows.jsonl", [chat("Which?", "Leek.", "And else?", "No.")])
    made = tokenizer("<|im_start|>", "<|im_end|>")
    limit = len(made(f"<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n{kept}")["input_ids"])
    book = recipe(
        tmp_path,
        dataset={"path": "./rows.jsonl"},
        template={"chat_template": "chatml", "loss": "all"},
        train={"max_length": limit},
    )
    assert prepared(book, made).statistics["flaws"]["without_stop"]["rows"] == unstopped


def test_the_worst_rows_over_a_limit_are_named(planted: Recipe) -> None:
    found = data.over_limits(prepared(planted, tokenizer()).statistics, planted)
    lines = [f"{dotted(problem.path)}: {problem.message}" for problem in found]
    assert [re.sub(r"\(\d+\)", "(n)", line) for line in lines] == [
        "dataset.limits.truncated: 8 rows are longer than train.max_length (8.0%, limit 5.0%); "
        "raise it or take them out",
        "dataset.limits.truncated: worst (tokens): row 6 of train.jsonl (n), row 7 of train.jsonl (n), "
        "row 8 of train.jsonl (n)",
        "dataset.limits.without_stop: 5 rows do not teach to stop (5.0%, limit 1.0%); "
        "raise train.max_length or mark the end of turn in the template",
        "dataset.limits.without_stop: worst (tokens): row 1 of train.jsonl (n), row 2 of train.jsonl (n), "
        "row 3 of train.jsonl (n)",
        "dataset.limits.fully_masked: 3 rows train nothing (3.0%, limit 0.0%); "
        "raise train.max_length or take them out",
        "dataset.limits.fully_masked: worst (tokens): row 6 of train.jsonl (n), row 7 of train.jsonl (n), "
        "row 8 of train.jsonl (n)",
        "dataset.limits.eval_leak: 2 evaluation rows are also trained on (20.0%, limit 0.0%); "
        "take them out of the training rows",
        "dataset.limits.eval_leak: worst (tokens): row 1 of eval.jsonl (n), row 2 of eval.jsonl (n)",
    ]


def test_evaluation_rows_that_are_dropped_are_noted(planted: Recipe) -> None:
    json_lines(planted.root / "eval.jsonl", [*MASKED, chat("New?", "Yes.")])
    found = prepared(planted, tokenizer())
    assert found.statistics["rows"]["evaluation"] == 1
    assert "3 of the evaluation rows hold no answer within train.max_length and were dropped" in found.notes


def test_rows_repeated_by_a_weight_are_no_duplicates(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", SHORT[:5])
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
    shown = preview(planted, made, planted.root / "cache", rows=len(ROWS))
    rows = [[token for token in row.tokens if token.state != "cut"] for row in shown.rows]
    ids = [[token.id for token in row] for row in rows if row]
    labels = [[token.id if token.state == "trained" else -100 for token in row] for row in rows if row]
    assert ids == found.train["input_ids"][:]
    assert labels == found.train["labels"][:]


def test_text_and_page_mark_what_is_learned_read_and_cut(planted: Recipe) -> None:
    shown = preview(planted, data.with_template(planted, tokenizer()), planted.root / "cache", rows=9)
    text = as_text(shown, colour=False)
    assert "User: Which soup, 0?\nAssistant:⟦ Leek 0.</s>⟧\n" in text
    assert "Assistant:⟦ Leek and potato." in text
    assert "⟨cut: " in text
    assert re.search(r"repeat an earlier row +10 +10.0%  limit 20.0%\n", text)
    assert "\x1b[32m Leek 0.</s>\x1b[0m" in as_text(shown, colour=True)
    page = as_html(shown)
    assert page.count("<rect ") == 20
    assert not re.search(r"https?://|<script|<link|<img", page)
    assert '<span class="trained" title="0">&lt;/s&gt;</span>' in page
    assert as_json(shown)["statistics"] == dict(shown.statistics)


def test_what_the_data_says_is_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\u202e"
    json_lines(tmp_path / "a.jsonl", [chat(hostile, hostile)])
    book = recipe(tmp_path, dataset={"path": "./a.jsonl"}, template={"chat_template": "plain"})
    shown = preview(book, data.with_template(book, tokenizer()), tmp_path / "cache")
    page, text = as_html(shown), as_text(shown, colour=False)
    assert "<script" not in page
    assert not re.search("[\x1b\u202e]", page + text)


def test_a_hostile_role_and_file_name_are_escaped_too(tmp_path: Path) -> None:
    odd = {"messages": [{"role": "\x1b[31mevil\x07", "content": "x"}]}
    json_lines(tmp_path / "a\x1b[31m.jsonl", [chat("Soup?", "Leek."), odd])
    dataset = {"path": "./*.jsonl", "on_bad_row": "skip"}
    book = recipe(tmp_path, dataset=dataset, template={"chat_template": "plain"})
    shown = preview(book, data.with_template(book, tokenizer()), tmp_path / "cache")
    assert not re.search("[\x1b\x07]", as_text(shown, colour=False) + as_html(shown))
