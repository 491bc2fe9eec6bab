"""A preview as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from loracook.data.preview import Preview, ShownRow
from loracook.errors import clean
from loracook.views.preview_text import FLAWS, LEGEND

WIDTH, HEIGHT = 720, 180
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f6f4;padding:1rem;border-radius:6px;color:#767670}
.trained{background:#c9ecd0;color:#0b3d17}.trained:nth-of-type(even){background:#b3e2bd}
.cut{background:#f6cfca;color:#7a1b10;text-decoration:line-through}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1rem .15rem 0}
td+td{font-variant-numeric:tabular-nums}
.over{color:#a3150c;font-weight:600}svg{max-width:100%}rect{fill:#5b8f6a}rect:hover{fill:#2f6b42}
"""


def as_html(shown: Preview) -> str:
    """A preview as a self-contained HTML page, everything from the data escaped."""
    return "".join(_parts(shown))


def _parts(shown: Preview) -> Iterator[str]:
    found, name = shown.statistics, _safe(shown.name)
    rows, learned, stops = found["rows"], found["trained_share"], found["stop_trained_share"]
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}: preview</title>'
    yield f"<style>{STYLE}</style><h1>{name}</h1>"
    yield f"<p>{rows['train']} rows to train, {rows['evaluation']} to evaluate; {found['tokens']} tokens, "
    yield f"{learned:.1%} of them learned; the stop token is learned in {stops:.1%} of the rows.</p>"
    yield from (f'<p class="over">{_safe(problem)}</p>' for problem in shown.over)
    yield from (f"<p>{_safe(note)}</p>" for note in shown.notes)
    if found["roles"]:
        spoken = ", ".join(f"{_safe(role)} {count}" for role, count in found["roles"].items())
        yield f"<p>Roles: {spoken}.</p>"
    lengths = found["lengths"]
    yield f"<h2>Lengths in tokens</h2><p>The longest row has {lengths['longest']}, max_length is "
    yield f"{lengths['limit']}.</p>{histogram(lengths)}"
    yield f"<h2>Rows</h2><table>{''.join(_flaw_rows(shown))}</table>"
    yield f"<table>{''.join(_source_rows(found['sources']))}</table>"
    legend = " ".join(f'<span class="{state}">{word}</span>' for state, word in LEGEND.items())
    yield f"<h2>The first rows</h2><p>{legend}</p>"
    yield from map(_row, shown.rows)
    yield "</html>\n"


def histogram(lengths: Mapping[str, Any]) -> str:
    """The lengths drawn as SVG, a line where max_length cuts."""
    edges, counts = lengths["histogram"]["edges"], lengths["histogram"]["rows"]
    across, high = WIDTH / (edges[-1] or 1), max(counts)
    bars = "".join(
        f'<rect x="{start * across:.1f}" y="{HEIGHT * (1 - count / high):.1f}"'
        f' width="{max((end - start) * across - 1, 1):.1f}" height="{HEIGHT * count / high:.1f}">'
        f"<title>{start:.0f} to {end:.0f} tokens: {count} rows</title></rect>"
        for start, end, count in zip(edges, edges[1:], counts, strict=False)
    )
    at, below = lengths["limit"] * across, HEIGHT + 16
    line = f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}" stroke="#a3150c" stroke-dasharray="4"/>'
    line = line if at <= WIDTH else ""  # no row is cut
    marks = (
        f'<text y="{below}">0</text><text x="{WIDTH}" y="{below}" text-anchor="end">{edges[-1]:.0f}</text>'
    )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT + 20}" width="{WIDTH}" font-size="12"'
    return f'<svg {size} role="img" aria-label="rows by their length">{bars}{line}{marks}</svg>'


def _flaw_rows(shown: Preview) -> Iterator[str]:
    for name, words in FLAWS.items():
        flaw, limit = shown.statistics["flaws"][name], shown.limits[name]
        style = ' class="over"' if flaw["share"] > limit else ""
        yield f"<tr{style}><td>{words}<td>{flaw['rows']}<td>{flaw['share']:.1%}<td>limit {limit:.1%}"


def _source_rows(sources: list[Mapping[str, Any]]) -> Iterator[str]:
    for source in sources:
        used = source["used_rows"]
        yield f"<tr><td>{_safe(source['path'])}<td>{source['format']}<td>{used} rows<td>{source['use']}"


def _row(row: ShownRow) -> str:
    tokens = "".join(
        f'<span class="{token.state}" title="{token.id}">{_lines(token.text)}</span>' for token in row.tokens
    )
    more = f"… and {row.length - len(row.tokens)} more" if row.length > len(row.tokens) else ""
    return f"<h3>{_safe(row.place)}, {row.length} tokens</h3><pre>{tokens}{more}</pre>"


def _lines(text: str) -> str:
    return "\n".join(_safe(line) for line in text.split("\n"))


def _safe(text: str) -> str:
    return escape(clean(text))
