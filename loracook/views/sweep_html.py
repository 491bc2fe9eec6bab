"""The page of a sweep: the best trial, a chart of the metric for each parameter, and the table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loracook.errors import spell
from loracook.sweep.table import FINISHED, Row, Table, ranked
from loracook.views.page import page
from loracook.views.sweep_text import labels, shown, value_of

FILE = "sweep.html"
WIDTH, HEIGHT = 360, 130


@dataclass(frozen=True)
class Dot:
    """A finished trial in a chart: its place from the upper left, and what it says."""

    x: float
    y: float
    title: str
    best: bool


@dataclass(frozen=True)
class Chart:
    """The metric over the values of one parameter: dots, and the ends of both axes."""

    title: str
    dots: Sequence[Dot]
    x: tuple[str, str]
    y: tuple[str, str]


def as_html(table: Table) -> str:
    """The page; without a script, everything on it is escaped."""
    sweep, best = table.sweep, table.best()
    done = [row for row in table.rows if row.state == FINISHED]
    ordered = [*ranked(done, sweep), *(row for row in table.rows if row.state != FINISHED)]
    rows = [
        {
            "number": table.rows.index(row) + 1,
            "values": [spell(row.point[name]) for name in sweep.parameters],
            "row": row,
            "value": value_of(row),
            "runs": ", ".join(table.run_names(row)),
        }
        for row in ordered
    ]
    return page(
        "sweep.html.jinja",
        sweep=sweep,
        labels=list(labels(sweep).values()),
        rows=rows,
        best=best
        and {"number": table.rows.index(best) + 1, "value": value_of(best), "with": shown(best.point)},
        charts=list(_charts(table, done)),
        size=(WIDTH, HEIGHT),
    )


def _charts(table: Table, done: Sequence[Row]) -> Iterator[Chart]:
    if not done:
        return
    values = [row.value or 0.0 for row in done]
    low, high = min(values), max(values)
    for name, label in labels(table.sweep).items():
        places, ends = _across(table, name, done)
        dots = [
            Dot(
                round(place * WIDTH, 1),
                round((1 - _share(value, low, high)) * HEIGHT, 1),
                f"trial {table.rows.index(row) + 1}: {spell(row.point[name])}, {value:.4g}",
                row is table.best(),
            )
            for row, place, value in zip(done, places, values, strict=True)
        ]
        yield Chart(label, dots, ends, (f"{low:.4g}", f"{high:.4g}"))


def _across(table: Table, name: str, done: Sequence[Row]) -> tuple[list[float], tuple[str, str]]:
    """Where the trials stand from left to right, 0 to 1, and what stands at both ends."""
    part = table.sweep.parameters[name]
    if "values" in part:
        listed = list(map(spell, part["values"]))
        shares = [listed.index(spell(row.point[name])) / max(len(listed) - 1, 1) for row in done]
        return shares, (listed[0], listed[-1])
    scale = math.log if part["distribution"] == "log_uniform" else float
    low, high = scale(part["min"]), scale(part["max"])
    shares = [_share(scale(row.point[name]), low, high) for row in done]
    return shares, (spell(part["min"]), spell(part["max"]))


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5
