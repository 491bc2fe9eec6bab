"""A sweep's file: read as recipes are, and checked with all of its trials before the first one starts."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import Path, Problem, RecipeError, quote, spell
from loracook.planner import deciding
from loracook.recipe.allowed import NOTHING, Allowed
from loracook.recipe.layers import Layer
from loracook.recipe.locations import forbidden_location
from loracook.recipe.overrides import FILE
from loracook.recipe.reach import reach_of
from loracook.recipe.recipe import Recipe, load, placed
from loracook.recipe.schema import schema_file
from loracook.recipe.schema_errors import check
from loracook.recipe.source import read
from loracook.recipe.untrusted import untrusted_problems
from loracook.stages import STAGES as EVERY
from loracook.sweep import points
from loracook.sweep.measured import STAGES, metrics
from loracook.sweep.points import MOST, Point

SCHEMA = "sweep.schema.json"
OWN = re.compile(rb"^(?:parameters|metric):", re.MULTILINE)
"""Starts a line of every sweep, and of no recipe."""
LONGEST_NAME = 64
SEED = "train.seed"


@dataclass(frozen=True)
class Sweep:
    """A valid sweep: its entries, the recipe, and the points that are known beforehand (not of bayes)."""

    file: FilePath
    data: Mapping[str, Any]
    recipe: Recipe
    points: tuple[Point, ...]
    layer: Layer

    @property
    def name(self) -> str:
        """The sweep's `name`, else the name of its file."""
        return str(self.data.get("name", self.file.stem))

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The values or the range of each parameter, by its dotted key."""
        parameters: Mapping[str, Mapping[str, Any]] = self.data["parameters"]
        return parameters

    @property
    def seeds(self) -> list[int | None]:
        """The seeds of each trial; None for that of the recipe."""
        return self.data.get("seeds") or [None]

    @property
    def metric(self) -> str:
        """What the trials are compared by."""
        return str(self.data["metric"]["name"])

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is minimized."""
        return bool(self.data["metric"]["goal"] == "minimize")

    @property
    def trials(self) -> int:
        """How many trials there are."""
        return len(self.points) or int(self.data["trials"])

    @cached_property
    def digest(self) -> str:
        """Of all that decides the trials, but not how many there are or what they run on."""
        decides = {
            name: self.data.get(name) for name in ("parameters", "method", "metric", "seeds", "early_stop")
        }
        text = json.dumps([decides, deciding(self.recipe)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def run_name(self, point: Point, seed: int | None) -> str:
        """The name of the run of a point: the recipe's, and a digest of the values."""
        digest = hashlib.sha256(points.key({**point, SEED: seed}).encode()).hexdigest()[:8]
        return f"{self.recipe.name[: LONGEST_NAME - 9]}-{digest}"

    def overrides(self, point: Point, seed: int | None) -> tuple[str, ...]:
        """A run's values as `--set` takes them, its stages after the evaluation left out."""
        return (*_overrides(self.recipe, point, seed), f"name={self.run_name(point, seed)}")

    def problem(self, path: Path, message: str) -> Problem:
        """A problem with the value at `path`, with its position in the sweep."""
        return placed(Problem(path, message, "sweep"), [self.layer])

    def load_run(self, point: Point, seed: int | None) -> Recipe:
        """The recipe of a run; raises RecipeError."""
        return load(self.recipe.file, self.overrides(point, seed), self.recipe.allowed)


def is_sweep(file: str) -> bool:
    """Whether a file is a sweep rather than a recipe, by its keys."""
    try:
        return os.path.isfile(file) and OWN.search(FilePath(file).read_bytes()[: 1 << 18]) is not None
    except OSError:
        return False


def problems_of(file: str, allowed: Allowed = NOTHING) -> tuple[Problem, ...]:
    """Every problem of a sweep and of its recipe, including warnings."""
    try:
        return load_sweep(FilePath(file), allowed).recipe.warnings
    except RecipeError as error:
        return error.problems


def load_sweep(file: FilePath, allowed: Allowed = NOTHING) -> Sweep:
    """The sweep in a file, every trial that is known beforehand checked; raises RecipeError with all problems."""
    source = read(file)
    layer = Layer("recipe", (), source.data, source.positions)
    data = source.data
    forbidden = list(untrusted_problems(data))
    reported = {problem.path for problem in forbidden}
    found = [*forbidden, *(each for each in _schema_problems(data) if each.path not in reported)]
    _refuse(found or [*_invalid_name(data, file.stem), *_contradictions(data)], layer)
    recipe = load(_recipe_file(data["recipe"], file, allowed, layer), (), allowed)
    tried, known = _points(data)
    _refuse([*_unmeasured(data, recipe), *_too_many(data, known)], layer)
    _refuse(list(_trial_problems(data, recipe, tried)), layer)
    return Sweep(file, data, recipe, tuple(known), layer)


def _schema_problems(data: Any) -> Iterator[Problem]:
    if not isinstance(data, dict):
        yield Problem((), "not a sweep; start it with 'recipe: chat.yaml'", "type")
        return
    yield from check(data, schema_file(SCHEMA), ())


def _invalid_name(data: Mapping[str, Any], stem: str) -> Iterator[Problem]:
    if "name" not in data and any(check(stem, schema_file(SCHEMA)["properties"]["name"], ())):
        yield Problem(
            (), f"the file name {quote(stem)} is no name for a sweep; add 'name: short-name'", "name"
        )


def _refuse(problems: list[Problem], layer: Layer) -> None:
    if problems:
        positioned = (problem if problem.position else placed(problem, [layer]) for problem in problems)
        raise RecipeError(sorted(positioned, key=_order))


def _order(problem: Problem) -> tuple[str, int, int]:
    position = problem.position
    return (position.file, position.line, position.column) if position else ("", 0, 0)


def _recipe_file(text: str, file: FilePath, allowed: Allowed, layer: Layer) -> str:
    reach = reach_of(file, allowed)
    recipe = os.path.normpath(reach.folder / text)
    refusal = forbidden_location(text) or reach.refusal(text)
    if not refusal and not os.path.isfile(recipe):
        refusal = "does not exist; use the path of a recipe, relative to this file"
    if refusal:
        _refuse([Problem(("recipe",), f"{quote(text)} {refusal}", "location")], layer)
    return recipe


def _contradictions(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong between the keys of a sweep that its schema allows."""
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
        message = "requires 'values: […]', or 'min', 'max' and 'distribution'; add what is missing"
        yield Problem(path, message)
        return
    low, high, kind = part["min"], part["max"], part["distribution"]
    if method == "grid":
        yield Problem(path, "a grid has no ranges; list the 'values', or use 'method: random'")
    if low >= high:
        yield Problem((*path, "min"), f"must be below max, {spell(high)}; use a smaller number")
    if kind == "log_uniform" and low <= 0:
        yield Problem((*path, "min"), "must be above 0 for log_uniform; use a greater number, or 'uniform'")
    if kind == "int_uniform" and not (isinstance(low, int) and isinstance(high, int)):
        yield Problem((*path, "distribution"), "int_uniform requires integers as min and max; use 'uniform'")


def _points(data: Mapping[str, Any]) -> tuple[list[Point], list[Point]]:
    """The points to check, and those of them that are the trials."""
    if data["method"] == "bayes":
        return points.ends(data["parameters"]), []
    grid = data["method"] == "grid"
    known = points.grid(data["parameters"]) if grid else points.draws(data["parameters"], data["trials"])
    return known, known


def _too_many(data: Mapping[str, Any], known: list[Point]) -> Iterator[Problem]:
    if len(known) > MOST:
        yield Problem(("parameters",), f"a grid of more than {MOST} trials; use 'method: random'")
    if data["method"] == "random" and len(known) < data["trials"]:
        yield Problem(("trials",), f"only {len(known)} different trials are possible; use 'method: grid'")


def _unmeasured(data: Mapping[str, Any], recipe: Recipe) -> Iterator[Problem]:
    name, measured = data["metric"]["name"], metrics(dict(recipe.sections))
    if name not in measured:
        shown = ", ".join(map(quote, measured))
        message = f"{quote(name)} is not measured by '{recipe.file}'; use one of {shown}"
        yield Problem(("metric", "name"), message, "metric")


def _trial_problems(data: Mapping[str, Any], recipe: Recipe, tried: list[Point]) -> Iterator[Problem]:
    """The problems of every trial's recipe, each once, and trials with the same result."""
    problems: dict[tuple[Path, str], Problem] = {}
    same: dict[str, Point] = {}
    for point in tried:
        try:
            content = deciding(
                load(recipe.file, _overrides(recipe, point, _first_seed(data)), recipe.allowed)
            )
        except RecipeError as error:
            for problem in error.problems:
                if problem.severity == "error":
                    ours = _of_parameter(problem, data, point)
                    problems.setdefault((ours.path, ours.message), ours)
            continue
        earlier = same.setdefault(content, point)
        if earlier is not point and data["method"] != "bayes":
            message = f"the same result with {_shown(earlier)} and {_shown(point)}; remove one"
            problems.setdefault(((), content), Problem(_differing(earlier, point), message, "identical"))
    yield from problems.values()


def _first_seed(data: Mapping[str, Any]) -> int | None:
    return next(iter(data.get("seeds", ())), None)


def _of_parameter(problem: Problem, data: Mapping[str, Any], point: Point) -> Problem:
    """A problem of a trial's recipe, at the value of the sweep that makes it where it is one alone."""
    position, names = problem.position, list(point)
    if position is None or position.file != FILE or position.line > len(names):
        message = f"{problem.message} (trial {_shown(point)})"
        return (
            replace(problem, message=message)
            if problem.position and problem.position.file != FILE
            else (Problem(("parameters",), message, problem.rule))
        )
    name = names[position.line - 1]
    part, value, path = data["parameters"][name], point[name], ("parameters", name)
    if problem.rule in ("unknown-key", "declined-key", "foreign-key", "set"):
        return Problem(path, problem.message, problem.rule)
    if "values" in part:
        path = (*path, "values", next(n for n, each in enumerate(part["values"]) if each is value))
    elif value in (part["min"], part["max"]):
        path = (*path, "min" if value == part["min"] else "max")
    return Problem(path, problem.message, problem.rule)


def _shown(point: Point) -> str:
    return ", ".join(f"{name}={spell(value)}" for name, value in point.items())


def _differing(one: Point, other: Point) -> Path:
    return (
        "parameters",
        next(name for name in one if one[name] != other[name] or one[name] is not other[name]),
    )


def _overrides(recipe: Recipe, point: Point, seed: int | None) -> tuple[str, ...]:
    left_out = [f"{stage}=null" for stage in EVERY if stage in recipe and stage not in STAGES]
    if "require" in recipe.sections.get("evaluate", {}):
        left_out.append("evaluate.require=null")
    values = (
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in point.items()
    )
    seeded = () if seed is None else (f"{SEED}={seed}",)
    return (*values, *seeded, *left_out)
