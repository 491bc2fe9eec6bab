"""A preview as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from loracook.data.preview import Preview, ShownRow, State, Token
from loracook.errors import clean

COLOURS: dict[State, str] = {"trained": "\x1b[32m", "masked": "\x1b[2m", "cut": "\x1b[9;31m"}
PLAIN = "\x1b[0m"
MARKS: dict[State, tuple[str, str]] = {"trained": ("⟦", "⟧"), "masked": ("", ""), "cut": ("⟨cut: ", "⟩")}
LEGEND: dict[State, str] = {"trained": "learned", "masked": "read only", "cut": "cut off"}
BAR = 40
FLAWS = {
    "truncated": "longer than max_length",
    "without_stop": "do not teach to stop",
    "fully_masked": "train nothing, dropped",
    "duplicates": "repeat an earlier row",
    "eval_leak": "evaluation rows trained on",
}


def as_text(shown: Preview, *, colour: bool) -> str:
    """A preview as lines of text; what is learned is green, or stands in ⟦ ⟧ without colour."""
    legend = ", ".join(_painted(state, word, colour=colour) for state, word in LEGEND.items())
    parts = [*(_row(row, colour=colour) for row in shown.rows), f"({legend})", *map(clean, summary(shown))]
    return "\n".join(parts) + "\n"


def summary(shown: Preview) -> Iterator[str]:
    """The statistics as lines of text."""
    found = shown.statistics
    rows, tokens, learned = found["rows"], found["tokens"], found["trained_tokens"]
    yield ""
    yield f"{shown.name}: {_count(rows['train'], 'row')} to train, {rows['evaluation']} to evaluate"
    yield f"{tokens} tokens, {learned} of them learned ({found['trained_share']:.1%})"
    for number, source in enumerate(found["sources"], 1):
        name = f"source {number}" if source["use"] == "train" else "evaluation"
        yield f"  {name}: {source['path']} as {source['format']}, {_count(source['used_rows'], 'row')}"
    if found["roles"]:
        yield "roles: " + ", ".join(f"{role} {count}" for role, count in found["roles"].items())
    yield f"the stop token is learned in {found['stop_trained_share']:.1%} of the rows"
    yield from _histogram(found["lengths"])
    yield from _flaws(found["flaws"], shown.limits)
    yield from (f"note: {note}" for note in shown.notes)
    yield from (f"over the limit: {problem}" for problem in shown.over)


def groups(tokens: Iterable[Token]) -> Iterator[tuple[State, str]]:
    """The text of neighbouring tokens of one state."""
    for state, group in groupby(tokens, key=lambda token: token.state):
        yield state, "".join(token.text for token in group)


def _row(row: ShownRow, *, colour: bool) -> str:
    text = "".join(_painted(state, _visible(text), colour=colour) for state, text in groups(row.tokens))
    more = f"… and {row.length - len(row.tokens)} more" if row.length > len(row.tokens) else ""
    ended = not more and bool(row.tokens) and row.tokens[-1].text.endswith("\n")
    return f"── {clean(row.place)}, {row.length} tokens\n{text}{more}" + ("" if ended else "\n")


def _visible(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))


def _painted(state: State, text: str, *, colour: bool) -> str:
    before, after = (COLOURS[state], PLAIN) if colour else MARKS[state]
    text = text if state == "masked" else text.replace("\n", "↵\n")
    return f"{before}{text}{after}"


def _histogram(lengths: Mapping[str, Any]) -> Iterator[str]:
    edges, counts = lengths["histogram"]["edges"], lengths["histogram"]["rows"]
    middle, high, longest = lengths["median"], lengths["p95"], lengths["longest"]
    limit = lengths["limit"]
    yield f"lengths in tokens: median {middle}, 95 % up to {high}, longest {longest}; max_length {limit}"
    filled = next(index for index, count in enumerate(counts) if count)
    for start, end, count in list(zip(edges, edges[1:], counts, strict=False))[filled:]:
        mark = " ← max_length" if start < limit <= end else ""
        bar = "█" * -(-BAR * count // max(counts))
        yield f"  {start:>7.0f} to {end:<7.0f}{count:>7} {bar}{mark}"


def _flaws(flaws: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[str]:
    for name, words in FLAWS.items():
        flaw, limit = flaws[name], limits[name]
        yield f"  {words:<28}{flaw['rows']:>7} {flaw['share']:>7.1%}  limit {limit:.1%}{_over(flaw, limit)}"


def _over(flaw: Mapping[str, Any], limit: float) -> str:
    if flaw["share"] <= limit:
        return ""
    return "  OVER: " + ", ".join(f"row {row['row']} of {row['file']}" for row in flaw["worst"])


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
