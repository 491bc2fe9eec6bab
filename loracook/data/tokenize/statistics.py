"""Statistics of the rows: lengths, loss masks, end-of-turn tokens, duplicates and leaks."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import Chat, Row
from loracook.data.read.selection import LocatedRow
from loracook.data.tokenize.chat_mask import ChatRenderer
from loracook.data.tokenize.encode import MASKED, Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BINS = 20
WORST = 3


@dataclass
class Tally:
    """Running counts over the rows of one use; grows by some 40 bytes per row."""

    tokenizer: PreTrainedTokenizerBase
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    lost_reasoning: int = 0
    lengths: array[int] = field(default_factory=lambda: array("I"))
    text_hashes: array[int] = field(default_factory=lambda: array("Q"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    files: array[int] = field(default_factory=lambda: array("I"))
    file_numbers: dict[str, int] = field(default_factory=dict)
    sources: Counter[int] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    repeated: array[int] = field(default_factory=lambda: array("B"))
    flaws: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("Q") for name in ("truncated", "missing_eos", "fully_masked")}
    )

    def add(self, located: LocatedRow, text: str, whole: Encoded, *, truncated: Encoded | None) -> None:
        """Count a row: its text, its tokens, and those left after truncation (None if fully masked)."""
        self._add_place(located)
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
        self.text_hashes.append(int.from_bytes(digest))
        self.lengths.append(len(whole.ids))
        self.roles.update(roles(located.row))
        self.lost_reasoning += loses_reasoning(located.row, text)
        if truncated is None:
            self._add_flaw("fully_masked")
        else:
            self.tokens += len(truncated.ids)
            self.trained_tokens += int((truncated.labels != MASKED).sum())
            if not self.ends_with_eos(truncated):
                self._add_flaw("missing_eos")
        shortened = truncated is None or len(truncated.ids) < len(whole.ids)
        if shortened and bool((whole.labels != MASKED).any()):
            self._add_flaw("truncated")
        self.rows += 1

    def ends_with_eos(self, row: Encoded) -> bool:
        """Whether the last token in the loss, ignoring white space, ends a turn."""
        for token in reversed(row.labels.tolist()):
            if token != MASKED and not self._is_blank(token):
                return token in self._end_ids
        return False

    def place(self, index: int) -> dict[str, Any]:
        """Where a counted row comes from, and its length in tokens."""
        name = list(self.file_numbers)[self.files[index]]
        return {"file": name, "row": self.numbers[index], "tokens": self.lengths[index]}

    def _add_place(self, located: LocatedRow) -> None:
        self.files.append(self.file_numbers.setdefault(located.place.file, len(self.file_numbers)))
        self.numbers.append(located.place.number)
        self.sources[located.source] += 1
        self.repeated.append(located.repeated)

    def _add_flaw(self, name: str) -> None:
        self.flaws[name].append(self.rows)

    @cached_property
    def _end_ids(self) -> set[int]:
        added = self.tokenizer.get_added_vocab()
        ends = ChatRenderer(self.tokenizer).end_tokens
        return {self.tokenizer.eos_token_id, *(added[token] for token in ends)}

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not self.tokenizer.decode([token]).strip()
        return self._blank[token]

    @cached_property
    def _blank(self) -> dict[int, bool]:
        return {}


def loses_reasoning(row: Row, text: str) -> bool:
    """Whether a row has reasoning that is not in its rendered text."""
    messages = row.messages if isinstance(row, Chat) else ()
    reasoning = (message.get("reasoning_content") for message in messages)
    return any(each and each.strip() not in text for each in reasoning)


def roles(row: Row) -> Iterator[str]:
    """The roles of a row's messages; none for plain text."""
    return (message["role"] for message in row.messages) if isinstance(row, Chat) else iter(())


def describe(train: Tally, evaluation: Tally | None, limit: int | None) -> dict[str, Any]:
    """The statistics of prepared rows as JSON values; shares are of the rows, lengths in tokens."""
    flaws = {**{name: list(rows) for name, rows in train.flaws.items()}, "duplicates": duplicates(train)}
    without_eos = len(flaws["missing_eos"]) + len(flaws["fully_masked"])
    leaks = leaked(train, evaluation)
    return {
        "rows": {"train": train.rows - len(train.flaws["fully_masked"]), "evaluation": _trained(evaluation)},
        "evaluation_longest": max(evaluation.lengths, default=0) if evaluation else 0,
        "evaluation_dropped": len(evaluation.flaws["fully_masked"]) if evaluation else 0,
        "tokens": train.tokens,
        "trained_tokens": train.trained_tokens,
        "trained_share": _share(train.trained_tokens, train.tokens),
        "lost_reasoning": train.lost_reasoning,
        "lengths": _lengths(train, limit),
        "roles": dict(train.roles),
        "eos_trained_share": 1 - _share(without_eos, train.rows),
        "flaws": {
            **{name: _flaw(train, rows, train.rows) for name, rows in flaws.items()},
            "eval_leak": _flaw(evaluation, leaks, evaluation.rows if evaluation else 0),
        },
    }


def duplicates(tally: Tally) -> list[int]:
    """The rows with the same text as an earlier one; rows repeated by a weight do not count."""
    import numpy

    first = numpy.flatnonzero(numpy.frombuffer(tally.repeated, dtype=numpy.uint8) == 0)
    hashes = numpy.frombuffer(tally.text_hashes, dtype=numpy.uint64)[first]
    _, earliest = numpy.unique(hashes, return_index=True)
    rows: list[int] = numpy.delete(first, earliest).tolist()
    return rows


def leaked(train: Tally, evaluation: Tally | None) -> list[int]:
    """The evaluation rows that are also among the training rows."""
    import numpy

    if evaluation is None or not evaluation.rows:
        return []
    seen = numpy.frombuffer(train.text_hashes, dtype=numpy.uint64)
    hashes = numpy.frombuffer(evaluation.text_hashes, dtype=numpy.uint64)
    rows: list[int] = numpy.flatnonzero(numpy.isin(hashes, seen)).tolist()
    return rows


def _trained(tally: Tally | None) -> int:
    return tally.rows - len(tally.flaws["fully_masked"]) if tally else 0


def _flaw(tally: Tally | None, rows: list[int], total: int) -> dict[str, Any]:
    if tally is None:
        return {"rows": 0, "share": 0.0, "worst": []}
    once = [index for index in rows if not tally.repeated[index]] or rows
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
    median, p95 = (int(value) for value in numpy.percentile(lengths, (50, 95)))
    return {
        "mean": float(lengths.mean()),
        "median": median,
        "p95": p95,
        "longest": longest,
        "limit": limit,
        "histogram": {"edges": [float(edge) for edge in edges], "rows": counts.tolist()},
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
