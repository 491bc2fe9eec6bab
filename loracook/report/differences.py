"""The words in which two texts differ, found within a bound on the work."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import groupby
from typing import NamedTuple

WORD = re.compile(
    r"\s+|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"  # scripts without spaces
    r"|\w+|[^\w\s]"
)
MOST = 200 * 200
"""Pairs of words that are compared; of longer texts all that lies between their common ends is marked."""


class Run(NamedTuple):
    """A part of a text, and whether it is marked."""

    text: str
    marked: bool


def marked(text: str, other: str) -> list[Run]:
    """A text in runs: marked is what the other text does not have in the same place."""
    ours, theirs = WORD.findall(text), WORD.findall(other)
    same = [False] * len(ours)
    for start, length in _common(ours, theirs):
        same[start : start + length] = [True] * length
    pairs = zip(ours, same, strict=True)
    groups = groupby(pairs, key=lambda pair: pair[1])
    runs = ((kept, "".join(word for word, _ in group)) for kept, group in groups)
    return [Run(text, not kept and not text.isspace()) for kept, text in runs]


def _common(ours: list[str], theirs: list[str]) -> Iterator[tuple[int, int]]:
    """Where in `ours` the words are that both have: starts and lengths."""
    pairs = list(zip(ours, theirs, strict=False))
    head = next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
    rest = min(len(ours), len(theirs)) - head
    tail = next((index for index in range(rest) if ours[-1 - index] != theirs[-1 - index]), rest)
    yield 0, head
    yield len(ours) - tail, tail
    middle, other = ours[head : len(ours) - tail], theirs[head : len(theirs) - tail]
    if len(middle) * len(other) <= MOST:
        for match in SequenceMatcher(None, middle, other, autojunk=False).get_matching_blocks():
            yield head + match.a, match.size
