"""The answers of an evaluation as a page shows them: the worst first, bounded, differing words marked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from loracook.errors import clean_lines, shorten
from loracook.report.differences import Run, marked
from loracook.report.generations import figure
from loracook.store.read_back import NUMBER, check_shape, read_json_lines

SHAPE = {"prompt": str | list, "reference": str | None, "base": str, "adapter": str, "cut": [str]}
SCORES = {str: {str: NUMBER}}
NOT_SIDES = {"prompt", "reference", "cut", "tokens", "scores", "set"}
SHOWN = 300
"""Rows on a page; the others stand in generations.jsonl."""
ROOM = 900_000
"""Bytes of all texts on a page together, as HTML."""
LENGTHS = (16_000, 8_000, 4_000, 2_000, 1_000, 500, 250, 100)
"""Characters that are shown of each text: the first of these with which all fit in the room."""
MESSAGES, SIDES, NAME = 50, 8, 60
"""Messages of a prompt, answers to it, and characters of a name that are shown."""
ORDER = {"worse": 0, "": 1, "alike": 2, "better": 3}


@dataclass(frozen=True)
class Text:
    """A text in runs, and how many characters of it are not shown."""

    label: str
    runs: Sequence[Run]
    hidden: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """One prompt with its reference and its answers; `outcome` is empty where nothing was scored."""

    number: int
    row_set: str
    outcome: str
    prompt: Sequence[Text]
    reference: Text | None
    answers: Sequence[Text]

    @property
    def cut(self) -> bool:
        """Whether an answer was cut by max_new_tokens."""
        return any("cut by max_new_tokens" in answer.notes for answer in self.answers)


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """The lines of generations.jsonl in the folder of an evaluation; raises ValueError for anything else."""
    lines: list[dict[str, Any]] = read_json_lines(folder / "generations.jsonl", SHAPE)
    for line in lines:
        check_shape(line.get("scores", {}), SCORES)
        check_shape(line.get("set", ""), str)
    return lines


def rows(lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows to show: those that got worse first, then those without a score, alike, and better."""
    numbered = sorted(enumerate(lines, 1), key=lambda pair: _rank(pair[1]))[:SHOWN]
    length = _length([line for _, line in numbered])
    return [_row(number, line, length) for number, line in numbered]


def _sides(line: Mapping[str, Any]) -> list[str]:
    names = (name for name, text in line.items() if name not in NOT_SIDES and isinstance(text, str))
    return sorted(names, key=lambda name: name not in ("base", "adapter"))[:SIDES]


def _change(line: Mapping[str, Any]) -> float | None:
    """How much better the adapter's answer is than the base model's, None where nothing was scored."""
    scores = [both for both in line.get("scores", {}).values() if {"adapter", "base"} <= both.keys()]
    return fmean(both["adapter"] - both["base"] for both in scores) if scores else None


def _outcome(line: Mapping[str, Any]) -> str:
    change = _change(line)
    return "" if change is None else "better" if change > 0 else "worse" if change < 0 else "alike"


def _rank(line: Mapping[str, Any]) -> tuple[float, ...]:
    reached = [both.get("adapter", 0.0) for both in line.get("scores", {}).values()]
    return ORDER[_outcome(line)], _change(line) or 0.0, fmean(reached) if reached else 0.0


def _length(lines: Sequence[Mapping[str, Any]]) -> int:
    """The characters of each text that can be shown."""
    texts = [text for line in lines for text in _texts(line)]
    # What is too long as it is need not be escaped to be measured.
    lengths = (length for length in LENGTHS if sum(min(len(text), length) for text in texts) <= ROOM)
    return next((length for length in lengths if _bytes(texts, length) <= ROOM), LENGTHS[-1])


def _bytes(texts: Sequence[str], length: int) -> int:
    return sum(len(escape(clean_lines(text[:length])).encode()) for text in texts)


def _texts(line: Mapping[str, Any]) -> Iterator[str]:
    yield from (text for _, text in _said(line["prompt"]))
    yield from (line[name] for name in ("reference", *_sides(line)) if line[name])


def _said(prompt: Any) -> Iterator[tuple[str, str]]:
    """Who says what in a prompt, which is a text or a list of messages."""
    if isinstance(prompt, str):
        yield "prompt", prompt
        return
    for message in prompt[:MESSAGES]:
        turn = message if isinstance(message, dict) else {"content": str(message)}
        role, content = turn.get("role"), turn.get("content")
        others = {key: value for key, value in turn.items() if key not in ("role", "content") and value}
        parts = [content if isinstance(content, str) else _json(content), _json(others)]
        yield str(role or "message"), "\n".join(filter(None, parts))
    if more := len(prompt[MESSAGES:]):
        yield "…", f"{more} more messages in generations.jsonl"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def _row(number: int, line: Mapping[str, Any], length: int) -> Row:
    sides, reference = _sides(line), line["reference"]
    whole = {side: line[side] for side in sides}
    against = {side: reference or whole["base" if side != "base" else "adapter"] for side in sides}
    return Row(
        number=number,
        row_set=shorten(line.get("set", ""), NAME),
        outcome=_outcome(line),
        prompt=[_plain(role, text, length) for role, text in _said(line["prompt"])],
        reference=None if reference is None else _plain("reference", reference, length),
        answers=[_answer(line, side, against[side][:length], length=length) for side in sides],
    )


def _plain(label: str, text: str, length: int) -> Text:
    return Text(
        shorten(label, NAME), [Run(clean_lines(text[:length]), marked=False)], max(len(text) - length, 0)
    )


def _answer(line: Mapping[str, Any], side: str, other: str, *, length: int) -> Text:
    """An answer with the words marked that the other text does not have."""
    scored = line.get("scores", {}).items()
    scores = [f"{shorten(name, NAME)} {figure(name, both[side])}" for name, both in scored if side in both]
    cut = ["cut by max_new_tokens"] if side in line["cut"] else []
    text = line[side]
    # Cleaned before it is taken apart, so that a secret is seen whole.
    runs = marked(clean_lines(text[:length]), clean_lines(other))
    return Text(shorten(side, NAME), runs, max(len(text) - length, 0), [*scores, *cut])
