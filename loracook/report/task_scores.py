"""Scores on tasks of lm-evaluation-harness: what the record states of each, and what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loracook.report.bootstrap import interval
from loracook.report.markdown import prose, table
from loracook.store.read_back import NUMBER
from loracook.store.record import read_result

SIDES = ("base", "adapter")
SCORES = [
    {
        "task": str, "metric": str, "filter": str, "group": str, "rows": int | None,
        "higher_is_better": bool | None,
        "base": NUMBER, "adapter": NUMBER, "base_stderr": NUMBER | None, "adapter_stderr": NUMBER | None,
        "low": NUMBER | None, "high": NUMBER | None,
    }
]  # fmt: skip
"""The shape of scores in the record."""


@dataclass(frozen=True)
class TaskScore:
    """A metric on a task, of both models with standard errors; `group` is what the task is a part of.

    `low` and `high` are the 95 % interval of the adapter's difference from the base, paired by row, where
    the metric is a mean over rows.
    """

    task: str
    metric: str
    filter: str
    group: str
    rows: int | None
    higher_is_better: bool | None
    base: float
    adapter: float
    base_stderr: float | None
    adapter_stderr: float | None
    low: float | None
    high: float | None

    @property
    def name(self) -> str:
        """The task with its metric, and the filter of answers where it is not the usual one."""
        return f"{self.task}.{self.metric}{'' if self.filter == 'none' else f' ({self.filter})'}"

    @property
    def texts(self) -> tuple[str, str]:
        """Both models' values, each with its standard error."""
        return _text(self.base, self.base_stderr), _text(self.adapter, self.adapter_stderr)

    @property
    def verdict(self) -> str:
        """What the interval of the difference says; empty where there is none."""
        if self.low is None or self.high is None or self.higher_is_better is None:
            return ""
        if self.low <= 0 <= self.high:
            return "no clear difference"
        return "better" if (self.low > 0) == self.higher_is_better else "worse"

    @property
    def change(self) -> str:
        """By how much the adapter differs from the base, with the interval where there is one."""
        sure = "" if self.low is None or self.high is None else f" ({self.low:+.4g} to {self.high:+.4g})"
        return f"{self.adapter - self.base:+.4g}{sure}"


def scores(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The scores of both models from what `lm_eval.evaluate` gave for each, as plain JSON values."""
    return [asdict(score) for score in _scores(results["base"], results["adapter"])]


def read_scores(entries: Sequence[Mapping[str, Any]]) -> list[TaskScore]:
    """The scores of a record."""
    return [TaskScore(**{name: entry[name] for name in SCORES[0]}) for entry in entries]


def stage_scores(folder: Path) -> list[TaskScore]:
    """The scores that a finished stage `lm_eval` states; raises MachineError where its record is corrupt."""
    return read_scores(read_result(folder, {"scores": SCORES})["scores"])


def as_markdown(scores: Sequence[TaskScore]) -> str:
    """A table of scores; text from tasks is escaped."""
    rows = [(prose(each.name), *each.texts, each.change, f"{each.rows or ''}") for each in scores]
    return table(("task", "base model", "trained", "difference (95 % interval)", "rows"), rows, align="---:")


def _scores(base: Mapping[str, Any], adapter: Mapping[str, Any]) -> Iterator[TaskScore]:
    groups = {name: group for group, names in base.get("group_subtasks", {}).items() for name in names}
    for task, values in base["results"].items():
        others = adapter["results"][task]
        for key in values:
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not _both_finite(values[key], others[key]):
                continue
            stderr = f"{metric}_stderr,{kind}"
            differences = _differences(base, adapter, task=task, metric=metric, kind=kind)
            low, high = interval(differences) or (None, None)
            yield TaskScore(
                task, metric, kind, groups.get(task, ""),
                rows=base.get("n-samples", {}).get(task, {}).get("effective"),
                higher_is_better=base.get("higher_is_better", {}).get(task, {}).get(metric),
                base=float(values[key]), adapter=float(others[key]),
                base_stderr=_number(values.get(stderr)), adapter_stderr=_number(others.get(stderr)),
                low=low, high=high,
            )  # fmt: skip


def _differences(
    base: Mapping[str, Any], adapter: Mapping[str, Any], *, task: str, metric: str, kind: str
) -> list[float]:
    """How the adapter differs from the base on each row; none where rows have no number of their own."""
    rows = [
        [row.get(metric) for row in side.get("samples", {}).get(task, ()) if row["filter"] == kind]
        for side in (base, adapter)
    ]
    if not all(_both_finite(*pair) for pair in zip(*rows, strict=True)):
        return []
    return [float(after) - float(before) for before, after in zip(*rows, strict=True)]


def _both_finite(before: Any, after: Any) -> bool:
    return _number(before) is not None and _number(after) is not None


def _number(value: Any) -> float | None:
    """A finite number of Python's or numpy's, None for anything else, such as "N/A"."""
    try:
        number = None if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _text(value: float, stderr: float | None) -> str:
    return f"{value:.4g}" + ("" if stderr is None else f" ± {stderr:.2g}")
