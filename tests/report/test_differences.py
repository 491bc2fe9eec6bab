"""The words that differ are marked, in every script and within a bound on the work."""

from __future__ import annotations

import time

import pytest

from loracook.report.differences import marked


def shown(text: str, other: str) -> str:
    """A text with its marked parts in brackets."""
    return "".join(f"[{run.text}]" if run.marked else run.text for run in marked(text, other))


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("a leek soup", "a leek soup", "a leek soup"),
        ("a pea soup", "a leek soup", "a [pea] soup"),
        ("a soup", "a leek soup", "a soup"),
        (
            '{"table":5,"items":["2 soups"]}',
            '{"table":5,"items":["3 soups"]}',
            '{"table":5,"items":["[2] soups"]}',
        ),
        ("韭菜汤", "豌豆汤", "[韭菜]汤"),
        ("", "a", ""),
        ("a b", "", "[a b]"),
        ("one two three four", "zero two 3 four", "[one] two [three] four"),
        ("soup soup", "soup", "soup[ soup]"),
    ],
)
def test_words_that_the_other_text_does_not_have_there_are_marked(
    text: str, other: str, expected: str
) -> None:
    assert shown(text, other) == expected


@pytest.mark.parametrize("word", ["a ", "soup\n", "x", "<b>"])
def test_long_texts_take_no_longer_than_their_words(word: str) -> None:
    text, other = word * 100_000, "b " + word * 90_000 + "c"
    began = time.process_time()
    runs = marked(text, other)
    assert time.process_time() - began < 3
    assert "".join(run.text for run in runs) == text
