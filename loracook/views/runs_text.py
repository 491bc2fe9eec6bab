"""Runs as aligned lines, and as plain values."""

from collections.abc import Iterator, Sequence
from typing import Any

from loracook.report.generations import figure
from loracook.results.overview import RUNNING, UNFINISHED, Overview
from loracook.units import size

HEAD = ("run", "date", "outcome", "size", "base → adapter")
DERIVED = "perplexity"
"""Says what the loss says."""


def as_lines(runs: Sequence[Overview]) -> list[str]:
    """The runs as a table."""
    rows = [HEAD, *map(_row, runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[_padded(*each) for each in zip(HEAD, row, widths, strict=True)] for row in rows]
    return ["  ".join(cells).rstrip() for cells in padded]


def _padded(name: str, cell: str, width: int) -> str:
    return cell.rjust(width) if name == "size" else cell.ljust(width)


def as_values(runs: Sequence[Overview]) -> list[dict[str, Any]]:
    """The runs for `--format json`."""
    return [
        {
            "name": run.name,
            "folder": str(run.folder),
            "date": run.date.isoformat(timespec="seconds"),
            "outcome": run.outcome,
            "detail": run.detail,
            "bytes": run.bytes,
            "metrics": {
                name: {"base": base, "adapter": adapter} for name, (base, adapter) in run.metrics.items()
            },
            "losses": dict(run.losses),
            "tasks": {each.name: {"base": each.base, "adapter": each.adapter} for each in run.tasks},
        }
        for run in runs
    ]


def _row(run: Overview) -> tuple[str, ...]:
    under_way = run.detail if run.outcome in (UNFINISHED, RUNNING) else ""
    outcome = f"{run.outcome}: {under_way}" if under_way else run.outcome
    remark = [] if under_way or not run.detail else [run.detail]
    date = f"{run.date:%Y-%m-%d %H:%M}"
    return run.name, date, outcome, size(run.bytes), "; ".join([*_reached(run), *remark])


def _reached(run: Overview) -> Iterator[str]:
    """What was measured of base and adapter, else the loss that training ended with."""
    for name, both in run.metrics.items():
        if name != DERIVED:
            yield f"{name} {' → '.join(figure(name, value) for value in both)}"
    for task in run.tasks:
        yield f"{task.name} {task.base:.4g} → {task.adapter:.4g}"
    if not (run.metrics or run.tasks) and run.losses:
        name = "eval_loss" if "eval_loss" in run.losses else next(iter(run.losses))
        yield f"{name.replace('_', ' ')} {figure('loss', run.losses[name])}"
