"""What is wrong with a sweep that its schema allows: between its keys, and with the recipes of its trials."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from loracook.errors import Path, Problem, RecipeError, quote, spell
from loracook.planner import deciding
from loracook.recipe.overrides import FILE
from loracook.recipe.recipe import Recipe, load
from loracook.stages import STAGES as EVERY
from loracook.sweep.measured import STAGES, metrics
from loracook.sweep.points import MOST, Point

SEED = "train.seed"
AT_KEY = {"unknown-key", "declined-key", "foreign-key", "set"}
"""Rules that a parameter's name breaks, not its value."""


def contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong between the keys of a sweep."""
    for name, part in data["parameters"].items():
        yield from _range_problems(("parameters", name), part, data["method"])
    if data["method"] == "grid" and "trials" in data:
        yield Problem(("trials",), "a grid tries every combination; remove it, or use 'method: random'")
    if data["method"] != "grid" and "trials" not in data:
        yield Problem(("method",), "requires the number of trials; add 'trials: 20'")
    if "seeds" in data and SEED in data["parameters"]:
        yield Problem(("parameters", SEED), "conflicts with 'seeds'; remove one of the two")


def _range_problems(path: Path, part: Mapping[str, Any], method: str) -> Iterator[Problem]:
    limits = [name for name in ("min", "max", "distribution") if name in part]
    if "values" in part:
        if limits:
            yield Problem((*path, limits[0]), "conflicts with 'values'; remove one of the two")
        return
    if len(limits) < 3:
        yield Problem(path, "requires 'values: […]', or all of 'min', 'max' and 'distribution'; add them")
        return
    low, high, kind = part["min"], part["max"], part["distribution"]
    if method == "grid":
        yield Problem(path, "a grid has no ranges; list the 'values', or use 'method: random'")
    if low >= high:
        yield Problem((*path, "min"), f"must be below max, {spell(high)}; use a smaller number")
    if kind == "log_uniform" and low <= 0:
        yield Problem((*path, "min"), "must be above 0 for log_uniform; use a greater number, or 'uniform'")
    if kind == "int_uniform" and not (isinstance(low, int) and isinstance(high, int)):
        yield Problem((*path, "distribution"), "requires integers as min and max; use 'uniform'")


def wrong_number(data: Mapping[str, Any], known: list[Point]) -> Iterator[Problem]:
    """Too many trials to check, or more than there are different ones."""
    if len(known) > MOST:
        yield Problem(("parameters",), f"a grid of more than {MOST} trials; use 'method: random'")
    if data["method"] == "random" and len(known) < data["trials"]:
        yield Problem(("trials",), f"only {len(known)} different trials are possible; use 'method: grid'")


def not_measured(data: Mapping[str, Any], recipe: Recipe) -> Iterator[Problem]:
    """The metric has to be one that the recipe measures."""
    name, measured = data["metric"]["name"], metrics(dict(recipe.sections))
    if name not in measured:
        message = f"{quote(name)} is not measured by the recipe; use one of {', '.join(map(quote, measured))}"
        yield Problem(("metric", "name"), message)


def trial_problems(data: Mapping[str, Any], recipe: Recipe, points: Iterable[Point]) -> Iterator[Problem]:
    """The problems of every trial's recipe, each once, and of listed trials with the same result."""
    found: dict[tuple[Path, str], Problem] = {}
    earlier: dict[str, Point] = {}
    seed = next(iter(data.get("seeds", ())), None)
    for point in points:
        try:
            content = deciding(load(recipe.file, overrides(recipe, point, seed), recipe.allowed))
        except RecipeError as error:
            ours = [_of_trial(problem, data, point) for problem in error.problems]
            found |= {(each.path, each.message): each for each in ours if each.severity == "error"}
            continue
        same = earlier.setdefault(content, point)
        if same is not point and data["method"] != "bayes":
            name = next(name for name in point if point[name] is not same[name])
            message = f"the same result with {_shown(same)} and {_shown(point)}; remove one"
            found.setdefault((("parameters", name), ""), Problem(("parameters", name), message))
    yield from found.values()


def _of_trial(problem: Problem, data: Mapping[str, Any], point: Point) -> Problem:
    """A problem of a trial's recipe, where the sweep sets what makes it; else in the recipe."""
    position, names = problem.position, list(point)
    if position is None or position.file != FILE or position.line > len(names):
        return replace(problem, message=f"{problem.message} (with {_shown(point)})")
    name = names[position.line - 1]
    path: Path = ("parameters", name)
    if problem.rule not in AT_KEY:
        path = (*path, *_place(data["parameters"][name], point[name]))
    return Problem(path, problem.message, problem.rule)


def _place(part: Mapping[str, Any], value: Any) -> Path:
    """Where a value stands among those of a parameter; nowhere for one that was drawn."""
    if "values" in part:
        return "values", next(index for index, each in enumerate(part["values"]) if each is value)
    return next(((name,) for name in ("min", "max") if part[name] == value), ())


def _shown(point: Point) -> str:
    return ", ".join(f"{name}={spell(value)}" for name, value in point.items())


def overrides(recipe: Recipe, point: Point, seed: int | None) -> tuple[str, ...]:
    """A trial's values as `--set` takes them; what comes after the evaluation is left out, gates included."""
    left_out = [f"{stage}=null" for stage in EVERY if stage in recipe and stage not in STAGES]
    left_out += ["evaluate.require=null"] if "require" in recipe.sections.get("evaluate", {}) else []
    values = [f"{name}={each if isinstance(each, str) else json.dumps(each)}" for name, each in point.items()]
    return (*values, *([] if seed is None else [f"{SEED}={seed}"]), *left_out)
