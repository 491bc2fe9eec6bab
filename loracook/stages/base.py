"""What a stage is: the shape every stage module fits, and what it is handed to work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loracook.progress import Progress

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe


@dataclass(frozen=True)
class Consent:
    """What the user allowed on the command line, for no recipe can allow it itself."""

    push: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Folders:
    """Where a stage works: its own folder, those of the finished stages before it, and what is above them."""

    own: Path
    before: Mapping[str, Path]
    run: Path
    cache: Path


class Stage(Protocol):
    """A module under loracook/stages; the recipe section of the same name makes it part of a run."""

    READS: tuple[str, ...]
    """The recipe sections that decide the result."""

    def after(self, recipe: Recipe) -> tuple[str, ...]:
        """Name the stages whose folders this one reads."""

    def files(self, recipe: Recipe) -> tuple[Path, ...]:
        """List the local files whose content decides the result; loads nothing heavy."""

    def describe(self, recipe: Recipe) -> str:
        """Say in one line, for the plan, what the stage will do."""

    def run(
        self, recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress
    ) -> dict[str, Any]:
        """Do the work in `folders.own` and return what the record should state, as plain JSON values.

        Files promised outside of `folders.own` are given as `elsewhere`: facts by their paths from it.
        """
