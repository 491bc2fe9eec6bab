"""Statistics of the rows: lengths, loss masks, end-of-turn tokens, duplicates and leaks."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import Chat, Message, Pair, Row
from loracook.data.read.selection import LocatedRow
from loracook.data.tokenize.chat_mask import ChatRenderer, reasoning_of, visible_text
from loracook.data.tokenize.encode import MASKED, Encoded
from loracook.data.tokenize.render import Rendered, as_chat
from loracook.data.tokenize.special_tokens import SpecialTokens

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
    added: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    special_within: dict[str, list[str]] = field(default_factory=dict)
    repeated: array[int] = field(default_factory=lambda: array("B"))
    flaws: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("Q") for name in ("truncated", "missing_eos", "fully_masked")}
    )

    def add(
        self, located: LocatedRow, rendered: Rendered, whole: Encoded, *, truncated: Encoded | None
    ) -> None:
        """Count a row: its text, its tokens, and those left after truncation (None if fully masked)."""
        text = rendered.text
        self.files.append(self.file_numbers.setdefault(located.place.file, len(self.file_numbers)))
        self.numbers.append(located.place.number)
        self.sources[located.source] += 1
        self.repeated.append(located.repeated)
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
        self.text_hashes.append(int.from_bytes(digest))
        self.lengths.append(len(whole.ids))
        messages = located.row.messages if isinstance(located.row, Chat) else ()
        self.roles.update(message["role"] for message in messages)
        self.lost_reasoning += loses_reasoning(_answers(located.row), rendered)
        self.added.update([rendered.added] if rendered.added else [])
        self.dropped.update(rendered.dropped)
        for token in self._special_tokens.within(located.row):
            self.special_within.setdefault(token, []).append(str(located.place))
        if truncated is None:
            self.flaws["fully_masked"].append(self.rows)
        else:
            self.tokens += len(truncated.ids)
            self.trained_tokens += int((truncated.labels != MASKED).sum())
            if not self.ends_with_eos(truncated):
                self.flaws["missing_eos"].append(self.rows)
        shortened = truncated is None or len(truncated.ids) < len(whole.ids)
        if shortened and bool((whole.labels != MASKED).any()):
            self.flaws["truncated"].append(self.rows)
        self.rows += 1

    def ends_with_eos(self, row: Encoded) -> bool:
        """Whether the last token in the loss, ignoring white space, ends a turn."""
        trained = (token for token in reversed(row.labels.tolist()) if token != MASKED)
        return next((token for token in trained if not self._is_blank(token)), MASKED) in self._end_ids

    def ends_turn(self, token: str) -> bool:
        """Whether the model stops at a token."""
        return self.tokenizer.convert_tokens_to_ids(token) in self._end_ids

    @cached_property
    def _end_ids(self) -> frozenset[int]:
        return ChatRenderer(self.tokenizer).end_ids

    @cached_property
    def _special_tokens(self) -> SpecialTokens:
        return SpecialTokens.of(self.tokenizer)

    @cached_property
    def _is_blank(self) -> Callable[[int], bool]:
        return cache(lambda token: not self.tokenizer.decode([token]).strip())


def loses_reasoning(answers: Sequence[Message], rendered: Rendered) -> bool:
    """Whether answers that are trained have reasoning that is not in the trained text.

    After a prompt only the last one counts: templates leave out earlier reasoning there on purpose.
    """
    if rendered.prompt is not None:
        answers = answers[-1:]
    reasoning = Counter(filter(None, map(reasoning_of, answers)))
    said, trained = "\n".join(map(visible_text, answers)), rendered.trained
    return any(trained.count(each) < count + said.count(each) for each, count in reasoning.items())


def _answers(row: Row) -> list[Message]:
    """What the assistant says in a row, without messages that are not to be trained."""
    chat = as_chat(row) if isinstance(row, Pair) else row
    messages = chat.messages if isinstance(chat, Chat) else ()
    return [turn for turn in messages if turn["role"] == "assistant" and turn.get("train", True)]


def describe(train: Tally, evaluation: Tally, limit: int | None) -> dict[str, Any]:
    """The statistics of prepared rows as JSON values; shares are of the rows, lengths in tokens."""
    flaws = {**{name: list(rows) for name, rows in train.flaws.items()}, "duplicates": duplicates(train)}
    masked, eval_masked = len(flaws["fully_masked"]), len(evaluation.flaws["fully_masked"])
    return {
        "rows": {"train": train.rows - masked, "evaluation": evaluation.rows - eval_masked},
        "evaluation_longest": max(evaluation.lengths, default=0),
        "evaluation_dropped": eval_masked,
        "tokens": train.tokens,
        "trained_tokens": train.trained_tokens,
        "trained_share": _share(train.trained_tokens, train.tokens),
        "lost_reasoning": train.lost_reasoning,
        "special_tokens": {
            "added": dict(train.added),
            "dropped": dict(train.dropped),
            "within": {
                token: {"rows": len(places), "first": places[0], "ends": train.ends_turn(token)}
                for token, places in sorted(train.special_within.items())
            },
        },
        "lengths": _lengths(train, limit),
        "roles": dict(train.roles),
        "eos_trained_share": 1 - _share(len(flaws["missing_eos"]) + masked, train.rows),
        "flaws": {
            **{name: _flaw(train, rows) for name, rows in flaws.items()},
            "eval_leak": _flaw(evaluation, leaked(train, evaluation)),
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


def leaked(train: Tally, evaluation: Tally) -> list[int]:
    """The evaluation rows that are also among the training rows."""
    import numpy

    seen, hashes = (numpy.frombuffer(each.text_hashes, dtype=numpy.uint64) for each in (train, evaluation))
    rows: list[int] = numpy.flatnonzero(numpy.isin(hashes, seen)).tolist()
    return rows


def _flaw(tally: Tally, rows: list[int]) -> dict[str, Any]:
    once = [index for index in rows if not tally.repeated[index]] or rows
    worst = sorted(once, key=lambda index: (-tally.lengths[index], index))[:WORST]
    names = list(tally.file_numbers)
    places = [
        {"file": names[tally.files[i]], "row": tally.numbers[i], "tokens": tally.lengths[i]} for i in worst
    ]
    return {"rows": len(rows), "share": _share(len(rows), tally.rows), "worst": places}


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
