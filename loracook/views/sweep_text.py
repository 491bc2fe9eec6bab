"""A sweep as aligned lines, one for each trial, and the recipe of its best one."""

from collections.abc import Iterator, Mapping

from loracook.errors import spell
from loracook.recipe.layers import with_value
from loracook.recipe.overrides import path_of
from loracook.recipe.yaml_values import rows as yaml_rows
from loracook.sweep.file import Sweep
from loracook.sweep.points import Point
from loracook.sweep.rules import SEED
from loracook.sweep.table import FAILED, FINISHED, Row, Table
from loracook.units import duration

WRITTEN_BY = "# Written by `loracook sweep"
"""Begins the recipe of the best trial, so that it may be replaced."""
NARROWEST, STATE = 8, 11


def labels(sweep: Sweep) -> dict[str, str]:
    """What each parameter is called in a table: the last part of its key where that is clear."""
    last = {name: name.rpartition(".")[2] for name in sweep.parameters}
    short = list(last.values())
    return {name: label if short.count(label) == 1 else name for name, label in last.items()}


def head(sweep: Sweep) -> str:
    """The first line of the table."""
    return _line(sweep, "trial", labels(sweep), end=("state", sweep.metric, "time"))


def line(sweep: Sweep, number: int, row: Row) -> str:
    """The line of a trial; number counts from 0."""
    values = {name: spell(row.point[name]) for name in sweep.parameters}
    reason = f"  {row.reason}" if row.state == FAILED else ""
    taken = duration(row.seconds) if row.seconds else ""
    return _line(sweep, str(number + 1), values, end=(row.state, value_of(row), taken)) + reason


def value_of(row: Row) -> str:
    """The value of a trial, and how it spreads over its seeds."""
    if row.value is None:
        return f"at step {row.step}" if row.step and row.state != FINISHED else ""
    spread = "" if row.spread is None else f" ± {row.spread:.2g}"
    return f"{row.value:.4g}{spread}"


def _line(sweep: Sweep, number: str, values: Mapping[str, str], *, end: tuple[str, ...]) -> str:
    cells = [number.rjust(5), *(values[name].ljust(_width(sweep, name)) for name in sweep.parameters)]
    state, value, taken = end
    width = max(len(sweep.metric), 16 if sweep.seeds != [None] else 10)
    return "  ".join([*cells, state.ljust(STATE), value.ljust(width), taken]).rstrip()


def _width(sweep: Sweep, name: str) -> int:
    values = map(spell, sweep.parameters[name].get("values", ()))
    return max(NARROWEST, len(labels(sweep)[name]), *map(len, values), 0)


def summary(table: Table, recipe: str) -> Iterator[str]:
    """What has become of the trials, the best one, and what to do with it."""
    states = [row.state for row in table.rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield f"{counts}; {table.folder}/sweep.html shows all"
    best = table.best()
    if best is not None:
        number = table.rows.index(best) + 1
        yield f"best: trial {number}, {table.sweep.metric} {value_of(best)} with {shown(best.point)}"
        yield f"next: loracook run {recipe}"


def shown(point: Point) -> str:
    """The values of a trial as `--set` takes them."""
    return ", ".join(f"{name}={spell(value)}" for name, value in point.items())


def best_recipe(table: Table, row: Row) -> str:
    """The recipe of a trial: it extends that of the sweep, lies beside it, and has the trial's run name."""
    sweep = table.sweep
    seed = sweep.seeds[0]
    data: dict[str, object] = {
        "version": 1,
        "extends": f"./{sweep.recipe.file.name}",
        "name": sweep.run_name(row.point, seed),
    }
    values = row.point if seed is None else {**row.point, SEED: seed}
    for name, value in values.items():
        data = with_value(data, path_of(name), value)
    finished = sum(each.state == FINISHED for each in table.rows)
    about = [
        f"{WRITTEN_BY}`: the best of {finished} finished trials of '{sweep.name}'.",
        f"# {sweep.metric} {value_of(row)}; its training is done: `loracook run` goes on from there.",
    ]
    if len(sweep.seeds) > 1:
        about.append(
            f"# The mean of seeds {', '.join(map(str, sweep.seeds))}; this is the run of seed {seed}."
        )
    return "\n".join([*about, *(text for text, _ in yaml_rows(data)), ""])
