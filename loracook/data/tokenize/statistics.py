"""Counting what the rows train: lengths, masks, stops, duplicates, leaks."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import Chat, Row
from loracook.data.read.selection import Located
from loracook.data.tokenize.chat_mask import ChatWriter
from loracook.data.tokenize.encode import MASKED, Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BINS = 20
WORST = 3


@dataclass
class Tally:
    """What was counted over the rows of one part; grows by some 40 bytes a row."""

    tokenizer: PreTrainedTokenizerBase
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    silenced: int = 0
    lengths: array[int] = field(default_factory=lambda: array("I"))
    prints: array[int] = field(default_factory=lambda: array("Q"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    files: array[int] = field(default_factory=lambda: array("I"))
    names: dict[str, int] = field(default_factory=dict)
    sources: Counter[int] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    again: array[int] = field(default_factory=lambda: array("B"))
    flaws: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("Q") for name in ("truncated", "without_stop", "fully_masked")}
    )

    def add(self, located: Located, text: str, whole: Encoded, kept: Encoded | None) -> None:
        """Count one row: as it was rendered, and what is left of it to train (None when nothing is)."""
        self._place(located)
        self.prints.append(
            int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())
        )
        self.lengths.append(len(whole.ids))
        self.roles.update(roles(located.row))
        if kept is None:
            self._flaw("fully_masked")
        if kept is None or len(kept.ids) < len(whole.ids):
            self._cut(whole, kept)
        self.silenced += lost_reasoning(located.row, text)
        if kept is not None:
            self.tokens += len(kept.ids)
            self.trained_tokens += int((kept.labels != MASKED).sum())
            if not self.stops(kept):
                self._flaw("without_stop")
        self.rows += 1

    def stops(self, row: Encoded) -> bool:
        """Whether the last thing learned in a row, white space aside, is to stop."""
        for token in reversed(row.labels.tolist()):
            if token != MASKED and not self._blank(token):
                return token in self._ends
        return False

    def place(self, index: int) -> dict[str, Any]:
        """Where a counted row stands, and its length in tokens."""
        name = list(self.names)[self.files[index]]
        return {"file": name, "row": self.numbers[index], "tokens": self.lengths[index]}

    def _place(self, located: Located) -> None:
        self.files.append(self.names.setdefault(located.place.file, len(self.names)))
        self.numbers.append(located.place.number)
        self.sources[located.source] += 1
        self.again.append(located.again)

    def _cut(self, whole: Encoded, kept: Encoded | None) -> None:
        if kept is not None or bool((whole.labels != MASKED).any()):
            self._flaw("truncated")

    def _flaw(self, name: str) -> None:
        self.flaws[name].append(self.rows)

    @cached_property
    def _ends(self) -> set[int]:
        added = self.tokenizer.get_added_vocab()
        return {self.tokenizer.eos_token_id, *(added[end] for end in ChatWriter(self.tokenizer).ends)}

    def _blank(self, token: int) -> bool:
        if token not in self._blanks:
            self._blanks[token] = not self.tokenizer.decode([token]).strip()
        return self._blanks[token]

    @cached_property
    def _blanks(self) -> dict[int, bool]:
        return {}


def lost_reasoning(row: Row, text: str) -> bool:
    """Whether a row holds reasoning that is not in its text."""
    said = (message.get("reasoning_content") for message in row.messages) if isinstance(row, Chat) else ()
    return any(reasoning and reasoning.strip() not in text for reasoning in said)


def roles(row: Row) -> Iterator[str]:
    """The roles that speak in a row; none in plain text."""
    return (message["role"] for message in row.messages) if isinstance(row, Chat) else iter(())


def described(train: Tally, evaluation: Tally | None, limit: int | None) -> dict[str, Any]:
    """The statistics of prepared rows as plain JSON values; shares are of the rows, lengths in tokens."""
    again, leaks = repeats(train), leaked(train, evaluation)
    found = {**{name: list(rows) for name, rows in train.flaws.items()}, "duplicates": again}
    return {
        "rows": {"train": train.rows - len(train.flaws["fully_masked"]), "evaluation": _left(evaluation)},
        "evaluation_longest": max(evaluation.lengths, default=0) if evaluation else 0,
        "evaluation_dropped": len(evaluation.flaws["fully_masked"]) if evaluation else 0,
        "tokens": train.tokens,
        "trained_tokens": train.trained_tokens,
        "trained_share": _share(train.trained_tokens, train.tokens),
        "lost_reasoning": train.silenced,
        "lengths": _lengths(train, limit),
        "roles": dict(train.roles),
        "stop_trained_share": 1 - _share(len(found["without_stop"]) + len(found["fully_masked"]), train.rows),
        "flaws": {
            **{name: _flaw(train, rows, train.rows) for name, rows in found.items()},
            "eval_leak": _flaw(evaluation, leaks, evaluation.rows if evaluation else 0),
        },
    }


def repeats(tally: Tally) -> list[int]:
    """The rows that say word for word what an earlier one does; rows repeated by a weight are none."""
    import numpy

    first = numpy.flatnonzero(numpy.frombuffer(tally.again, dtype=numpy.uint8) == 0)
    prints = numpy.frombuffer(tally.prints, dtype=numpy.uint64)[first]
    _, earliest = numpy.unique(prints, return_index=True)
    rows: list[int] = numpy.delete(first, earliest).tolist()
    return rows


def leaked(train: Tally, evaluation: Tally | None) -> list[int]:
    """The evaluation rows that are also among the training rows."""
    import numpy

    if evaluation is None or not evaluation.rows:
        return []
    seen = numpy.frombuffer(train.prints, dtype=numpy.uint64)
    rows: list[int] = numpy.flatnonzero(
        numpy.isin(numpy.frombuffer(evaluation.prints, dtype=numpy.uint64), seen)
    ).tolist()
    return rows


def _left(tally: Tally | None) -> int:
    return tally.rows - len(tally.flaws["fully_masked"]) if tally else 0


def _flaw(tally: Tally | None, rows: list[int], total: int) -> dict[str, Any]:
    if tally is None:
        return {"rows": 0, "share": 0.0, "worst": []}
    once = [index for index in rows if not tally.again[index]] or rows
    worst = sorted(once, key=lambda index: (-tally.lengths[index], index))[:WORST]
    return {
        "rows": len(rows),
        "share": _share(len(rows), total),
        "worst": [tally.place(index) for index in worst],
    }


def _lengths(tally: Tally, limit: int | None) -> dict[str, Any]:
    import numpy

    lengths = numpy.frombuffer(tally.lengths, dtype=numpy.uint32)
    longest = int(lengths.max())
    counts, edges = numpy.histogram(lengths, bins=min(BINS, longest), range=(0, longest))
    middle, high = (int(value) for value in numpy.percentile(lengths, (50, 95)))
    return {
        "mean": float(lengths.mean()),
        "median": middle,
        "p95": high,
        "longest": longest,
        "limit": limit,
        "histogram": {"edges": [float(edge) for edge in edges], "rows": counts.tolist()},
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
