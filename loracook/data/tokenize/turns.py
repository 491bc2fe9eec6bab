"""A token row as training gets it → its last trained turn: what comes before it, what is trained in it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from loracook.data.tokenize.encode import MASKED, Encoded


@dataclass(frozen=True)
class Turn:
    """A trained turn of a row: its place among the row's trained turns, counted from the last (-1) back, the
    token ids before it, and those trained in it.
    """

    place: int
    prompt_ids: list[int]
    trained_ids: list[int]


def last_turn(row: Encoded) -> Turn | None:
    """The last trained turn that a row still has after truncation; None if no token comes before it."""
    started = [turn for turn in enumerate(row.turns, -len(row.turns)) if 0 < turn[1] < len(row.ids)]
    if not started:
        return None
    place, start = started[-1]
    labels = row.labels[start:].tolist()
    return Turn(place, row.ids[:start].tolist(), list(takewhile(lambda label: label != MASKED, labels)))
