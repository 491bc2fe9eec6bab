"""What training logged, as lines over its steps that a page can draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracook.store.read_back import read_json_lines
from loracook.units import size

POINTS = 300
"""Of a line that is drawn: of more steps, each point is the mean of some neighbours."""

Point = tuple[float, float]


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def _size(value: float) -> str:
    return size(round(value))


CHARTS: dict[str, tuple[dict[str, str], Callable[[float], str]]] = {
    "Loss": ({"loss": "training", "eval_loss": "evaluation"}, _number),
    "Learning rate": ({"learning_rate": ""}, _number),
    "Gradient norm": ({"grad_norm": ""}, _number),
    "Tokens per second": ({"tokens_per_second": ""}, _number),
    "Peak memory so far": ({"memory_bytes": ""}, _size),
}
"""Each chart with what it draws of the log, the names of its lines, and how its values are written."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, its points and how its last value is written."""

    name: str
    points: Sequence[Point]
    last: str


@dataclass(frozen=True)
class Chart:
    """Lines over steps, and the range they are drawn in; `marks` are steps at which training resumed."""

    title: str
    lines: Sequence[Line]
    x: Point
    y: Point
    labels: tuple[str, str]
    marks: Sequence[float] = ()

    def place(self, point: Point, width: float, height: float) -> Point:
        """Where a point is in a drawing of that size, from its upper left corner."""
        across = (point[0] - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (point[1] - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return round(across * width, 1), round((1 - up) * height, 1)


def read_log(file: Path) -> list[dict[str, Any]]:
    """The entries of a log; raises ValueError when it is none."""
    log: list[dict[str, Any]] = read_json_lines(file, {"step": int})
    return log


def charts(log: Sequence[Mapping[str, Any]], resumed_at: Iterable[int] = ()) -> list[Chart]:
    """The charts of what a log has, over the steps of all attempts."""
    marks = list(resumed_at)
    return [chart for title in CHARTS if (chart := _chart(title, log, marks))]


def not_finite(log: Sequence[Mapping[str, Any]]) -> int:
    """How many of the values in a log are NaN or infinite, which no line shows."""
    names = [name for lines, _ in CHARTS.values() for name in lines]
    return sum(_is_number(entry.get(name)) and not is_finite(entry[name]) for entry in log for name in names)


def _chart(title: str, log: Sequence[Mapping[str, Any]], marks: Iterable[int]) -> Chart | None:
    names, written = CHARTS[title]
    drawn = {label: points for name, label in names.items() if (points := _points(log, name))}
    lines = [Line(label, points, written(points[-1][1])) for label, points in drawn.items()]
    if not lines:
        return None
    steps, values = zip(*(point for line in lines for point in line.points), strict=True)
    low, high = min(values), max(values)
    shown = tuple(step for step in marks if min(steps) <= step <= max(steps))
    return Chart(title, lines, (min(steps), max(steps)), (low, high), (written(low), written(high)), shown)


def _points(log: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    points = [(float(entry["step"]), float(entry[name])) for entry in log if is_finite(entry.get(name))]
    size = math.ceil(len(points) / POINTS) or 1
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [_mean(group) for group in groups]


def _mean(points: Sequence[Point]) -> Point:
    steps, values = zip(*points, strict=True)
    return steps[-1], math.fsum(value / len(values) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def is_finite(value: Any) -> bool:
    """Whether a value of a log is a number that a chart can show."""
    return _is_number(value) and math.isfinite(value)
