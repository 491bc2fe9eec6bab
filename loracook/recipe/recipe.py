"""A recipe: valid, complete and frozen, every value with its origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import Path, Position, Problem, RecipeError, quote
from loracook.recipe.extends import lineage, pulled_in
from loracook.recipe.layers import Kind, Layer, changing, deciding, leading_through, merged
from loracook.recipe.overrides import override
from loracook.recipe.rules import contradictions
from loracook.recipe.schema import entries, part_at, with_defaults
from loracook.recipe.schema_errors import check, complaints
from loracook.recipe.untrusted import unsafe

PROBLEMS = 200  # a recipe with more is shown the rest when these are mended
AT_KEY = {"unknown-key", "declined-key", "required", "foreign-key"}


@dataclass(frozen=True)
class Origin:
    """Who decided a value, and where it is written; loracook's own defaults are written nowhere."""

    kind: Kind
    position: Position | None = None

    def __str__(self) -> str:
        return self.kind if self.position is None else f"{self.position.file}:{self.position.line}"


@dataclass(frozen=True)
class Recipe:
    """The effective values of a recipe by section, and where each comes from."""

    file: FilePath
    sections: Mapping[str, Any]
    layers: tuple[Layer, ...]
    warnings: tuple[Problem, ...] = ()

    def __getitem__(self, section: str) -> Any:
        """The effective values of a section; KeyError when the recipe has none."""
        return self.sections[section]

    def __contains__(self, section: str) -> bool:
        return section in self.sections

    @property
    def name(self) -> str:
        """What the recipe calls itself, else what its file is called."""
        return str(self.sections.get("name", self.file.stem))

    @property
    def root(self) -> FilePath:
        """The folder that the recipe's relative paths lie in."""
        return self.file.parent

    def origin(self, path: Path) -> Origin:
        """Who decided what stands at `path`."""
        found = changing(self.layers, path) or deciding(self.layers, path)
        if found is None or found[0].removes(path):
            return Origin("loracook")
        return Origin(found[0].kind, found[1].key)

    def problem(self, path: Path, message: str) -> Problem:
        """A problem with what stands at `path`, placed in the recipe."""
        return placed(Problem(path, message), self.layers)

    def resolve(self, text: str) -> FilePath:
        """The file that a relative path names, links followed; raises RecipeError outside the root."""
        root = self.root.resolve()
        found = (root / text).resolve()
        if not found.is_relative_to(root):
            raise RecipeError(
                [self.problem(self._path_to(text), f"'{text}' lies outside the recipe's folder")]
            )
        return found

    def _path_to(self, text: str) -> Path:
        return next((path for path, value in entries(dict(self.sections)) if value == text), ())


def load(file: str | FilePath, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file with every `--set` applied; raises RecipeError with all of its problems."""
    layers = (*reversed(_sets(overrides)), *lineage(file))
    data = merged(layers)
    found = list(islice(_wrong(data), PROBLEMS))
    if not found:
        data = with_defaults({name: section for name, section in data.items() if name != "extends"})
        found = [*_nameless(data, FilePath(file).stem), *contradictions(data)]
    problems = sorted((placed(problem, layers) for problem in found), key=_order)
    if any(problem.severity == "error" for problem in problems):
        raise RecipeError(problems)
    return Recipe(FilePath(file), data, layers, tuple(problems))


def placed(problem: Problem, layers: Sequence[Layer]) -> Problem:
    """The problem with its position, taken from the nearest entry that is written down."""
    for length in range(len(problem.path), -1, -1):
        found = deciding(layers, problem.path[:length])
        if found:
            layer, entry = found
            holds_more = isinstance(layer.value(problem.path[:length]), dict | list)
            at_key = holds_more or length < len(problem.path) or problem.rule in AT_KEY
            return replace(pulled_in(problem, layer.by), position=entry.key if at_key else entry.value)
        through = leading_through(layers, problem.path[:length])
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


def _wrong(data: Any) -> Iterator[Problem]:
    """What no recipe may hold, and what the schema complains of elsewhere."""
    forbidden = list(unsafe(data))
    said = {problem.path for problem in forbidden}
    yield from forbidden
    yield from (problem for problem in complaints(data) if problem.path not in said)


def _nameless(data: dict[str, Any], stem: str) -> Iterator[Problem]:
    if "name" not in data and any(check(stem, part_at(("name",)) or {}, ())):
        yield Problem(
            (), f"the file's name {quote(stem)} cannot name the run; write 'name: short-name'", "name"
        )


def _order(problem: Problem) -> tuple[str, int, int]:
    place = problem.position
    return ("", 0, 0) if place is None else (place.file, place.line, place.column)
