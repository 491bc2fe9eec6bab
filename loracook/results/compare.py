"""Runs held against each other, metric by metric, on the rows that all of them answered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from loracook.errors import LoracookError
from loracook.evaluation.comparison import ADAPTER, BASE, RowScores
from loracook.report.bootstrap import EQUAL, LOWER_IS_BETTER, verdict
from loracook.results.evaluated import Evaluated, Row, evaluated
from loracook.store.runs import Run


@dataclass(frozen=True)
class Standing:
    """The best run by a metric and the next one, on the rows that all runs have: the means' difference (best
    minus next) and its 95 % interval, None for one row.
    """

    metric: str
    best: str
    next: str
    difference: float
    interval: Sequence[float] | None
    rows: int
    wins: Mapping[str, int]

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than the choice of rows explains."""
        return self._verdict == "better"

    @property
    def is_equal(self) -> bool:
        """Whether both runs are the same on every row."""
        return self._verdict == EQUAL

    @property
    def _verdict(self) -> str:
        return verdict(self.metric.rpartition(".")[2], self.interval, self.wins)


@dataclass(frozen=True)
class AnsweredRow:
    """A row with the answer of each run by its title, and the scores of each by metric."""

    prompt: Any
    reference: str | None
    answers: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]]

    @property
    def spread(self) -> tuple[float, bool]:
        """How far the runs are apart on this row: by their scores, then by whether they say the same."""
        ranges = (max(each.values()) - min(each.values()) for each in self.scores.values())
        return max(ranges, default=0.0), len(set(self.answers.values())) > 1


@dataclass(frozen=True)
class Comparison:
    """Runs with what their evaluations left."""

    runs: Sequence[Evaluated]

    @property
    def metrics(self) -> list[str]:
        """Every metric that a run has, in the order of the first."""
        return list(dict.fromkeys(name for run in self.runs for name in run.figures(ADAPTER)))

    @property
    def tasks(self) -> list[str]:
        """Every score of lm-evaluation-harness that a run has."""
        return list(dict.fromkeys(name for run in self.runs for name in run.tasks))

    @cached_property
    def standings(self) -> dict[str, Standing]:
        """Who is best by each metric that all runs have of the same rows."""
        found = {name: self._standing(name) for name in self.metrics}
        return {name: standing for name, standing in found.items() if standing}

    def _standing(self, metric: str) -> Standing | None:
        scores = {run.title: run.scores.get(metric, {}) for run in self.runs}
        first, *others = scores.values()
        rows = [row for row in first if all(row in each for each in others)]
        if not rows:
            return None
        sign = -1 if metric.rpartition(".")[2] in LOWER_IS_BETTER else 1
        weights = [first[row][1] for row in rows]
        values = {title: [each[row][0] for row in rows] for title, each in scores.items()}
        means = {title: RowScores({BASE: each}, weights).mean(BASE) for title, each in values.items()}
        best, after = sorted(means, key=lambda title: -sign * means[title])[:2]
        pair = RowScores({BASE: values[after], ADAPTER: values[best]}, weights)
        wins = pair.wins(metric.rpartition(".")[2])
        return Standing(
            metric, best, after,
            difference=means[best] - means[after],
            interval=pair.intervals().get("difference"),
            rows=len(rows),
            wins={best: wins[ADAPTER], after: wins[BASE], "equal": wins["equal"]},
        )  # fmt: skip

    def rows(self, most: int) -> list[AnsweredRow]:
        """The rows answered by all runs on which these are furthest apart."""
        first, *others = (run.answers for run in self.runs)
        common = [self._answered(row) for row in first if all(row in each for each in others)]
        return sorted(common, key=lambda row: row.spread, reverse=True)[:most]

    def _answered(self, row: Row) -> AnsweredRow:
        lines = {run.title: run.answers[row] for run in self.runs}
        line = next(iter(lines.values()))
        scored = {title: each.get("scores", {}) for title, each in lines.items()}
        metrics = [name for name in line.get("scores", {}) if all(name in each for each in scored.values())]
        return AnsweredRow(
            line["prompt"],
            line["reference"],
            {title: each[ADAPTER] for title, each in lines.items()},
            {name: {title: each[name][ADAPTER] for title, each in scored.items()} for name in metrics},
        )

    def notes(self) -> Iterator[str]:
        """What makes figures hard to compare."""
        for run in self.runs:
            if not (run.measured or run.tasks):
                yield f"{run.title} has no finished evaluation"
            elif "loss" in run.figures(ADAPTER) and "loss" not in run.scores:
                yield (
                    f"the losses of {run.title} were not kept by row; remove {run.run.stages['evaluate']} "
                    "to evaluate it again"
                )
        for name in self.metrics:
            if all(run.scores.get(name) for run in self.runs):
                yield from self._other_rows(name)

    def _other_rows(self, metric: str) -> Iterator[str]:
        shared = self.standings[metric].rows if metric in self.standings else 0
        most = max(len(run.scores[metric]) for run in self.runs)
        if shared < most:
            yield f"{metric}: {shared:,} of {most:,} rows are the same in all runs"
        elif len({run.figures(BASE)[metric] for run in self.runs}) > 1:
            yield f"{metric}: the base model's figures differ, so the base models or settings do"


def compared(runs: Sequence[Run]) -> Comparison:
    """Runs side by side, each under a title of its own.

    Raises:
        LoracookError: two of them are the same.
        MachineError: what an evaluation left is corrupt.
    """
    titles = [run.name for run in runs]
    if len(set(titles)) < len(titles):
        titles = [str(run.folder.parent / run.name) for run in runs]
    places = [sorted(path.resolve() for path in run.stages.values()) for run in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise LoracookError(f"'{titles[number]}' is named twice; name two different runs")
    return Comparison([evaluated(title, run) for title, run in zip(titles, runs, strict=True)])
