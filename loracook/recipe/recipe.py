"""A recipe: valid, complete and frozen, every value with its origin."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import Path, Position, Problem, RecipeError, quote
from loracook.recipe.allowed import NOTHING, Allowed, code_problems
from loracook.recipe.extends import lineage, naming_child
from loracook.recipe.layers import Kind, Layer, changing, deciding, merged, passing_through
from loracook.recipe.overrides import override
from loracook.recipe.present import look_alikes
from loracook.recipe.reach import OutOfReachError, Reach, place_problems, reach_of
from loracook.recipe.rules import rule_problems
from loracook.recipe.schema import entries, part_at, with_defaults
from loracook.recipe.schema_errors import check, schema_problems
from loracook.recipe.untrusted import untrusted_problems

PROBLEMS = 200  # of a recipe with more, the rest is shown once these are fixed
AT_KEY = {"unknown-key", "declined-key", "required", "foreign-key"}


@dataclass(frozen=True)
class Origin:
    """Who set a value, and where it is written; loracook's own defaults have no position, and those of
    `start_from` that of the key which names the adapter.
    """

    kind: Kind
    position: Position | None = None

    def __str__(self) -> str:
        if self.position is None or self.kind == "start_from":
            return self.kind
        return f"{self.position.file}:{self.position.line}"


@dataclass(frozen=True)
class Recipe:
    """The effective values of a recipe by section, and the origin of each."""

    file: FilePath
    sections: Mapping[str, Any]
    layers: tuple[Layer, ...]
    warnings: tuple[Problem, ...] = ()
    allowed: Allowed = NOTHING

    def __getitem__(self, section: str) -> Any:
        """The effective values of a section; KeyError when the recipe has none."""
        return self.sections[section]

    def __contains__(self, section: str) -> bool:
        return section in self.sections

    @property
    def name(self) -> str:
        """The recipe's `name`, else the name of its file."""
        return str(self.sections.get("name", self.file.stem))

    @cached_property
    def reach(self) -> Reach:
        """Where the recipe's relative paths start, and which files it may read."""
        return reach_of(self.file, self.allowed)

    @property
    def own_code(self) -> str | None:
        """The base model, as org/model@commit, where the user allows its own code to be run; else None."""
        base = self.sections["base_model"]
        name = f"{base['name_or_path']}@{base.get('revision')}"
        return name if name in self.allowed.code else None

    def origin(self, path: Path) -> Origin:
        """Who set the value at `path`."""
        return origin_in(self.layers, path)

    def problem(self, path: Path, message: str) -> Problem:
        """A problem with the value at `path`, with its position in the recipe."""
        return placed(Problem(path, message), self.layers)

    def taking(self, section: str, values: Mapping[str, Any], key: str) -> "Recipe":
        """The recipe with values of a section that the file named by its `key` decides, and it does not.

        Raises:
            RecipeError: they contradict the recipe.
        """
        named = next(filter(None, (layer.entry((section, key)) for layer in self.layers)))
        paths = ((section, *path) for path, _ in entries(values))
        layer = Layer("start_from", (), {section: values}, dict.fromkeys(paths, named))
        sections = {**self.sections, section: {**self.sections[section], **values}}
        taken = replace(self, sections=sections, layers=(layer, *self.layers))
        problems = [
            placed(problem, taken.layers)
            for problem in rule_problems(sections)
            if problem.severity == "error"
        ]
        if problems:
            raise RecipeError(problems)
        return taken

    def resolve(self, text: str) -> FilePath:
        """The file at a path, links followed; raises RecipeError where the recipe may not read it."""
        try:
            return self.reach.resolve(text)
        except OutOfReachError as error:
            message = f"{quote(text)} {error}"
            raise RecipeError([self.problem(self._path_to(text), message)]) from error

    def _path_to(self, text: str) -> Path:
        return next((path for path, value in entries(dict(self.sections)) if value == text), ())


def load(file: str | FilePath, overrides: Sequence[str] = (), allowed: Allowed = NOTHING) -> Recipe:
    """The recipe in a file with every `--set` applied; raises RecipeError with all its problems."""
    reach = reach_of(FilePath(file), allowed)
    layers = layers_of(file, overrides, allowed)
    data = merged(layers)
    unplaced = list(islice(_invalid(data), PROBLEMS))
    if not unplaced:
        data = with_defaults({name: section for name, section in data.items() if name != "extends"})
        unplaced = [*_invalid_name(data, FilePath(file).stem), *rule_problems(data)]
        unplaced += [*place_problems(data, reach), *code_problems(data["base_model"], allowed)]
        unplaced += look_alikes(data, reach)
    problems = sorted((placed(problem, layers) for problem in unplaced), key=_order)
    if any(problem.severity == "error" for problem in problems):
        raise RecipeError(problems)
    return Recipe(FilePath(file), data, layers, tuple(problems), allowed)


def layers_of(file: str | FilePath, overrides: Sequence[str], allowed: Allowed) -> tuple[Layer, ...]:
    """Every `--set`, then the file and its parents, the first winning; raises RecipeError."""
    return (*reversed(_sets(overrides)), *lineage(file, reach_of(FilePath(file), allowed)))


def origin_in(layers: Sequence[Layer], path: Path) -> Origin:
    """Which of the layers set the value at `path`; loracook where none did."""
    match changing(layers, path) or deciding(layers, path):
        case (layer, entry) if not layer.removes(path):
            return Origin(layer.kind, entry.key)
    return Origin("loracook")


def placed(problem: Problem, layers: Sequence[Layer]) -> Problem:
    """The problem with its position: that of its entry, or of the nearest entry above that is written."""
    for length in range(len(problem.path), -1, -1):
        decision = deciding(layers, problem.path[:length])
        if decision:
            layer, entry = decision
            holds_more = isinstance(layer.value(problem.path[:length]), dict | list)
            at_key = holds_more or length < len(problem.path) or problem.rule in AT_KEY
            return replace(
                naming_child(problem, layer.extended_by), position=entry.key if at_key else entry.value
            )
        through = passing_through(layers, problem.path[:length])
        if through:
            return replace(problem, position=through.key)
    return problem


def _sets(texts: Sequence[str]) -> list[Layer]:
    sets: list[Layer] = []
    problems: list[Problem] = []
    for number, text in enumerate(texts, 1):
        try:
            sets.append(override(text, number))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return sets


def _invalid(data: Any) -> Iterator[Problem]:
    """What no recipe may contain, and the schema's problems with everything else."""
    forbidden = list(untrusted_problems(data))
    reported = {problem.path for problem in forbidden}
    yield from forbidden
    yield from (problem for problem in schema_problems(data) if problem.path not in reported)


def _invalid_name(data: dict[str, Any], stem: str) -> Iterator[Problem]:
    if "name" not in data and any(check(stem, part_at(("name",)) or {}, ())):
        message = f"the file name {quote(stem)} is not a valid run name; add 'name: short-name'"
        yield Problem((), message, "name")


def _order(problem: Problem) -> tuple[str, int, int]:
    position = problem.position
    return ("", 0, 0) if position is None else (position.file, position.line, position.column)
