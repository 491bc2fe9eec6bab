"""A preview as text for the terminal, and as one self-contained HTML page."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, get_args

from loracook.data.preview import Preview, PreviewRow, State, Token
from loracook.data.warnings import FLAWS
from loracook.errors import clean, clean_lines
from loracook.views.page import page

COLOURS: dict[State, str] = {"trained": "\x1b[32m", "masked": "\x1b[2m", "truncated": "\x1b[9;31m"}
RESET = "\x1b[0m"
MARKS: dict[State, tuple[str, str]] = {"trained": ("⟦", "⟧"), "masked": ("", ""), "truncated": ("⟨", "⟩")}
BAR = 40


def as_text(preview: Preview, *, colour: bool) -> str:
    """A preview as lines of text; trained tokens are green, or in ⟦ ⟧ without colour."""
    legend = ", ".join(_mark(state, state, colour=colour) for state in get_args(State))
    rows = (_row(row, colour=colour) for row in preview.rows)
    return "\n".join([*rows, f"({legend})", *map(clean, summary(preview))]) + "\n"


def as_html(preview: Preview) -> str:
    """A preview as a page that loads nothing from elsewhere.

    Every value is escaped, and its invisible characters and secrets are replaced.
    """
    flaws = {name: flaw._asdict() for name, flaw in FLAWS.items()}
    return page("preview.html.jinja", preview=preview, flaws=flaws, states=get_args(State))


def summary(preview: Preview) -> Iterator[str]:
    """The statistics as lines of text."""
    statistics = preview.statistics
    rows, tokens, trained = statistics["rows"], statistics["tokens"], statistics["trained_tokens"]
    yield ""
    yield f"{preview.name}: {_rows(rows['train'], 'training ')}, {_rows(rows['evaluation'], 'evaluation ')}"
    yield f"{tokens} tokens, {trained} of them in the loss ({statistics['trained_share']:.1%})"
    for number, source in enumerate(statistics["sources"], 1):
        name = f"source {number}" if source["use"] == "train" else "evaluation"
        yield f"  {name}: {source['path']} ({source['format']}), {_rows(source['used_rows'])}"
    if statistics["roles"]:
        yield "roles: " + ", ".join(f"{role} {count}" for role, count in statistics["roles"].items())
    yield f"{statistics['eos_trained_share']:.1%} of the rows have an end-of-turn (EOS) token in the loss"
    yield from _histogram(statistics["lengths"])
    yield from _flaws(statistics["flaws"], preview.limits)
    yield from (f"note: {note}" for note in preview.notes)
    yield from (f"over the limit: {problem}" for problem in preview.over)


def groups(tokens: Iterable[Token]) -> Iterator[tuple[State, str]]:
    """The text of neighbouring tokens with the same state."""
    for state, group in groupby(tokens, key=lambda token: token.state):
        yield state, "".join(token.text for token in group)


def _row(row: PreviewRow, *, colour: bool) -> str:
    text = "".join(_mark(state, clean_lines(text), colour=colour) for state, text in groups(row.tokens))
    more = f"… and {row.hidden} more" if row.hidden else ""
    ended = not more and bool(row.tokens) and row.tokens[-1].text.endswith("\n")
    return f"── {clean(row.place)}, {row.length} tokens\n{text}{more}" + ("" if ended else "\n")


def _mark(state: State, text: str, *, colour: bool) -> str:
    before, after = (COLOURS[state], RESET) if colour else MARKS[state]
    text = text if state == "masked" else text.replace("\n", "↵\n")
    return f"{before}{text}{after}"


def _histogram(lengths: Mapping[str, Any]) -> Iterator[str]:
    edges, counts, limit = lengths["histogram"]["edges"], lengths["histogram"]["rows"], lengths["limit"]
    median, p95, longest = lengths["median"], lengths["p95"], lengths["longest"]
    yield f"lengths in tokens: median {median}, 95th percentile {p95}, longest {longest}; max_length {limit}"
    first = next(index for index, count in enumerate(counts) if count)
    for start, end, count in list(zip(edges, edges[1:], counts, strict=False))[first:]:
        mark = " ← max_length" if start < limit <= end else ""
        bar = "█" * -(-BAR * count // max(counts))
        yield f"  {start:>7.0f} to {end:<7.0f}{count:>7} {bar}{mark}".rstrip()


def _flaws(flaws: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[str]:
    for rows, names in groupby(FLAWS, key=lambda name: FLAWS[name].rows):
        yield f"{rows} that"
        for name in names:
            count, share, limit = flaws[name]["rows"], flaws[name]["share"], limits[name]
            over = "  over the limit" if share > limit else ""
            yield f"  {FLAWS[name].predicate:<44}{count:>7} {share:>7.1%}  limit {limit:.1%}{over}"


def _rows(count: int, kind: str = "") -> str:
    return f"{count} {kind}row" if count == 1 else f"{count} {kind}rows"
