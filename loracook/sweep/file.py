"""A sweep's file: read as recipes are, and checked with all of its trials before the first one starts."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import Path, Problem, RecipeError, quote
from loracook.planner import deciding
from loracook.recipe.allowed import NOTHING, Allowed
from loracook.recipe.layers import Layer
from loracook.recipe.locations import forbidden_location
from loracook.recipe.reach import reach_of
from loracook.recipe.recipe import Recipe, load, placed
from loracook.recipe.schema import schema_file
from loracook.recipe.schema_errors import check
from loracook.recipe.source import read
from loracook.recipe.untrusted import untrusted_problems
from loracook.sweep import points, rules
from loracook.sweep.points import Point

SCHEMA = "sweep.schema.json"
OWN = re.compile(rb"^[\"']?(?:parameters|metric)[\"']?:", re.MULTILINE)
"""In every sweep, and in no recipe."""
DECIDING = ("parameters", "method", "metric", "seeds", "early_stop")
"""What decides the trials, but for how many there are."""
LONGEST_NAME = 64


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
        """Of all that decides the trials."""
        text = json.dumps([{name: self.data.get(name) for name in DECIDING}, deciding(self.recipe)])
        return _digest(text)

    def run_name(self, point: Point, seed: int | None) -> str:
        """The name of the run of a point: the recipe's, and a digest of the values."""
        return f"{self.recipe.name[: LONGEST_NAME - 9]}-{_digest(points.key({**point, rules.SEED: seed}))}"

    def overrides(self, point: Point, seed: int | None) -> tuple[str, ...]:
        """All that a run sets, as `--set` takes it."""
        return (*rules.overrides(self.recipe, point, seed), f"name={self.run_name(point, seed)}")

    def load_run(self, point: Point, seed: int | None) -> Recipe:
        """The recipe of a run; raises RecipeError."""
        return load(self.recipe.file, self.overrides(point, seed), self.recipe.allowed)

    def problem(self, path: Path, message: str) -> Problem:
        """A problem with the value at `path`, with its position."""
        return placed(Problem(path, message), [self.layer])


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
    """The sweep in a file; raises RecipeError with all that is wrong with it and with its trials.

    Of bayes, whose trials are not known, it checks all values and both ends of every range.
    """
    source = read(file)
    data, layer = source.data, Layer("recipe", (), source.data, source.positions)
    _refuse(_invalid(data), layer)
    _refuse((*_invalid_name(data, file.stem), *rules.contradictions(data)), layer)
    _refuse(_invalid_recipe(data["recipe"], file, allowed), layer)
    recipe = load(os.path.normpath(file.parent / data["recipe"]), (), allowed)
    known = _points(data)
    _refuse((*rules.not_measured(data, recipe), *rules.wrong_number(data, known)), layer)
    tried = known or points.ends(data["parameters"])
    _refuse(rules.trial_problems(data, recipe, tried), layer)
    return Sweep(file, data, recipe, tuple(known), layer)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _invalid(data: Any) -> Iterator[Problem]:
    """What no file may contain, and the schema's problems with everything else."""
    if not isinstance(data, dict):
        yield Problem((), "not a sweep; start it with 'recipe: chat.yaml'", "type")
        return
    forbidden = list(untrusted_problems(data))
    reported = {problem.path for problem in forbidden}
    yield from forbidden
    yield from (each for each in check(data, schema_file(SCHEMA), ()) if each.path not in reported)


def _invalid_name(data: Mapping[str, Any], stem: str) -> Iterator[Problem]:
    if "name" not in data and any(check(stem, schema_file(SCHEMA)["properties"]["name"], ())):
        message = f"the file name {quote(stem)} is not a valid name; add 'name: short-name'"
        yield Problem((), message, "name")


def _invalid_recipe(text: str, file: FilePath, allowed: Allowed) -> Iterator[Problem]:
    refusal = forbidden_location(text) or reach_of(file, allowed).refusal(text)
    if not refusal and not (file.parent / text).is_file():
        refusal = "does not exist; use the path of a recipe, relative to this file"
    if refusal:
        yield Problem(("recipe",), f"{quote(text)} {refusal}", "location")


def _points(data: Mapping[str, Any]) -> list[Point]:
    """The points of all trials; none where they depend on what is measured."""
    if data["method"] == "bayes":
        return []
    if data["method"] == "grid":
        return points.grid(data["parameters"])
    return points.draws(data["parameters"], data["trials"])


def _refuse(found: Iterable[Problem], layer: Layer) -> None:
    if problems := list(found):
        positioned = (problem if problem.position else placed(problem, [layer]) for problem in problems)
        raise RecipeError(sorted(positioned, key=_order))


def _order(problem: Problem) -> tuple[str, int, int]:
    position = problem.position
    return (position.file, position.line, position.column) if position else ("", 0, 0)
