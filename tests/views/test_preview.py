"""A preview as text and as a page: what is marked, and that text from the data stays text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loracook import data
from loracook.data.preview import Preview, preview
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe
from loracook.views.preview import as_html, as_text, summary
from tests.data.samples import chat, json_lines, planted_flaws, recipe, tokenizer

GOLDEN = Path(__file__).parent / "golden" / "preview.txt"


def shown_rows(book: Recipe) -> Preview:
    """The preview of up to nine rows."""
    made = data.with_template(book, tokenizer())
    return preview(book, made, book.file.parent / "cache", progress=Silent(), rows=9)


def test_the_summary_reads_as_in_the_golden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "\n".join(summary(shown_rows(planted_flaws(Path()))))
    assert text.strip() + "\n" == GOLDEN.read_text("utf-8")


def test_text_and_page_mark_trained_masked_and_truncated_tokens(tmp_path: Path) -> None:
    shown = shown_rows(planted_flaws(tmp_path))
    text = as_text(shown, colour=False)
    assert "User: Which soup, 0?\nAssistant:⟦ Leek 0.</s>⟧\n" in text
    assert "Assistant:⟦ Leek and potato." in text
    assert re.search("⟧⟨ Leek|⟧⟨Leek", text)
    assert "\x1b[32m Leek 0.</s>\x1b[0m" in as_text(shown, colour=True)
    page = as_html(shown)
    assert page.count("<rect ") == 20
    assert not re.search(r"https?://|<script|<link|<img", page)
    assert '<span class="trained" title="0">&lt;/s&gt;</span>' in page


def test_hostile_text_from_the_data_is_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\u202e"
    json_lines(tmp_path / "a.jsonl", [chat(hostile, hostile)])
    book = recipe(tmp_path, dataset={"path": "./a.jsonl"}, template={"chat_template": "plain"})
    shown = shown_rows(book)
    page, text = as_html(shown), as_text(shown, colour=False)
    assert "<script" not in page
    assert not re.search("[\x1b\u202e]", page + text)


def test_a_hostile_role_and_file_name_are_escaped(tmp_path: Path) -> None:
    odd = {"messages": [{"role": "\x1b[31mevil\x07", "content": "x"}]}
    json_lines(tmp_path / "a\x1b[31m.jsonl", [chat("Soup?", "Leek."), odd])
    dataset = {"path": "./*.jsonl", "on_bad_row": "skip"}
    book = recipe(tmp_path, dataset=dataset, template={"chat_template": "plain"})
    shown = shown_rows(book)
    assert not re.search("[\x1b\x07]", as_text(shown, colour=False) + as_html(shown))
