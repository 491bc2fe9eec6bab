"""What a run leaves, as the lines shown at its end."""

from __future__ import annotations

from pathlib import Path

from loracook.planner import Plan
from loracook.report.generations import figures
from loracook.stages.push import needs_consent
from loracook.store.record import read_record

MAIN = {"train": "adapter", "evaluate": "generations.md", "merge": "model"}
"""The file or folder of each stage that one looks at first; a push says itself where it went."""


def result_lines(planned: Plan, only: str | None) -> list[str]:
    """The before/after table where there is one, what lies where, and a command to try next.

    Args:
        planned: the plan as it is now.
        only: the stage that alone was asked for.
    """
    done = {stage.name: stage.folder for stage in planned.stages if stage.done}
    places = [f"  {name:<10}{_place(planned, name, folder)}" for name, folder in done.items()]
    return [*_table(done.get("evaluate")), "", *places, "", *_next(planned, done, only)]


def _place(planned: Plan, name: str, folder: Path) -> str:
    if name in MAIN:
        return str(folder / MAIN[name])
    pushed = read_record(folder)["result"]
    return str(pushed.get("url") or planned.folder / pushed["folder"])


def _table(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    measured = read_record(folder)["result"]
    rows = [("", "base", "adapter"), *figures(measured)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["", *(f"  {a:<{widths[0]}}   {b:>{widths[1]}}   {c:>{widths[2]}}" for a, b, c in rows)]


def _next(planned: Plan, done: dict[str, Path], only: str | None) -> list[str]:
    left = [stage.name for stage in planned.to_do]
    if left == ["push"] and needs_consent(planned.recipe):
        whole = " and without --only" if only else ""
        return [f"to upload it, run the same command again with --push{whole}"]
    if left:
        return [f"still to do: {', '.join(left)}; run the same command without --only"]
    if "evaluate" in done:
        return [f"read the answers side by side:  less {done['evaluate'] / 'generations.md'}"]
    return [f"look at the losses:  less {done['train'] / 'log.jsonl'}"]
