"""Runs side by side in words: who is better at what, the figures, what the recipes change, answers."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from loracook.errors import MachineError, shorten
from loracook.evaluation.comparison import ADAPTER, BASE
from loracook.report.bootstrap import EQUAL
from loracook.report.generations import figure, signed, text_of, unit
from loracook.results.compare import AnsweredRow, Comparison, Standing
from loracook.results.evaluated import Evaluated
from loracook.results.recorded import alike, recorded
from loracook.store.read_back import NUMBER
from loracook.store.record import read_record, read_result
from loracook.units import duration
from loracook.views.diff import changes

TRAINED = {"losses": {str: NUMBER}, "steps": int}
LONGEST = 2000
"""Characters of an answer that are shown."""
NOTHING = "-"


def as_lines(comparison: Comparison, rows: int) -> list[str]:
    """The outcome, the figures, the changed values and the notes; the `rows` that are furthest apart."""
    notes = list(comparison.notes())
    return [
        *outcome(comparison),
        "",
        *_aligned(list(_table(comparison))),
        "",
        *recipe_changes(comparison),
        *(["", *notes] if notes else []),
        *(line for row in comparison.rows(rows) for line in ("", *_row(row))),
    ]


def outcome(comparison: Comparison) -> list[str]:
    """A line for each run that is clearly better at something, then what decides nothing."""
    standings = list(comparison.standings.values())
    if not standings:
        return ["no metric was measured on rows that all of them have"]
    clear = sorted((one for one in standings if one.is_clear), key=lambda one: one.best)
    lines = []
    for best, those in groupby(clear, key=lambda one: one.best):
        lines.append(f"{best} is better: {', '.join(f'{one.metric} {_by(one)}' for one in those)}")
    unclear = [one.metric for one in standings if not (one.is_clear or one.is_equal)]
    equal = [one.metric for one in standings if one.is_equal]
    unchanged = {"no clear difference": unclear, EQUAL: equal}
    return [*lines, *(f"{said}: {', '.join(names)}" for said, names in unchanged.items() if names)]


def recipe_changes(comparison: Comparison) -> list[str]:
    """What differs in the recipes that the runs were made from."""
    try:
        lines = changes(alike([recorded(run.run) for run in comparison.runs]))
    except MachineError as error:
        return [str(error)]
    return lines or ["no difference in effective values"]


def _table(comparison: Comparison) -> Iterator[list[str]]:
    yield ["", "base", *(run.title for run in comparison.runs), "best", "rows"]
    for name in comparison.metrics:
        standing = comparison.standings.get(name)
        cells = [_figure(run, name) for run in comparison.runs]
        last = [_standing(standing), f"{standing.rows:,}"] if standing else [NOTHING, NOTHING]
        yield [name, _base(comparison.runs, name), *cells, *last]
    for name in comparison.tasks:
        scores = [run.tasks[name].texts if name in run.tasks else None for run in comparison.runs]
        bases = {each[0] for each in scores if each}
        base = bases.pop() if len(bases) == 1 else "differs"
        yield [name, base, *(each[1] if each else NOTHING for each in scores), NOTHING, NOTHING]
    trained = [_training(run) for run in comparison.runs]
    for name in dict.fromkeys(key for each in trained for key in each):
        yield [name, "", *(each.get(name, NOTHING) for each in trained), "", ""]


def _figure(run: Evaluated, name: str) -> str:
    values, intervals = run.figures(ADAPTER), run.figures("intervals")
    if name not in values:
        return NOTHING
    bounds = intervals.get(name, {}).get(ADAPTER)
    between = f" ({' to '.join(figure(_plain(name), bound) for bound in bounds)})" if bounds else ""
    return figure(_plain(name), values[name]) + between


def _base(runs: Sequence[Evaluated], name: str) -> str:
    values = {figure(_plain(name), run.figures(BASE)[name]) for run in runs if name in run.figures(BASE)}
    return values.pop() if len(values) == 1 else "differs"


def _training(run: Evaluated) -> dict[str, str]:
    """What training took and ended with."""
    folder = run.run.stages.get("train")
    if folder is None:
        return {}
    result = read_result(folder, TRAINED)
    losses = {"loss": "training loss", "eval_loss": "loss in training's own evaluation"}
    return {
        **{losses[name]: f"{value:.4g}" for name, value in result["losses"].items() if name in losses},
        "steps": f"{result['steps']:,}",
        "training time": duration(read_record(folder)["seconds"]),
    }


def _standing(standing: Standing) -> str:
    if standing.is_clear:
        return f"{standing.best} {_by(standing)}"
    if standing.is_equal:
        return EQUAL
    return f"no clear difference ({_between(standing)}{unit(_plain(standing.metric))})"


def _by(standing: Standing) -> str:
    """By how much the best run is better, and the interval of that."""
    amount = _amount(standing.metric, abs(standing.difference))
    return f"by {amount}{unit(_plain(standing.metric))} ({_between(standing)})"


def _between(standing: Standing) -> str:
    if standing.interval is None:
        return NOTHING
    bounds = sorted(standing.interval, key=abs) if standing.is_clear else standing.interval
    low, high = (abs(bound) if standing.is_clear else bound for bound in bounds)
    return f"{_amount(standing.metric, low)} to {_amount(standing.metric, high)}"


def _amount(metric: str, value: float) -> str:
    """A difference as text, without a plus sign."""
    return signed(_plain(metric), value).removeprefix("+")


def _plain(metric: str) -> str:
    """A metric without the name of its row set."""
    return metric.rpartition(".")[2]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(row: AnsweredRow) -> Iterator[str]:
    scores = {
        title: "".join(f", {name} {figure(name, each[title])}" for name, each in row.scores.items())
        for title in row.answers
    }
    yield from _quoted("prompt", text_of(row.prompt))
    if row.reference is not None:
        yield from _quoted("reference", row.reference)
    for title, answer in row.answers.items():
        yield from _quoted(title + scores[title], answer)


def _quoted(label: str, text: str) -> Iterator[str]:
    yield f"{label}:"
    yield from textwrap.indent(shorten(text, LONGEST) or "(empty)", "  ").split("\n")
