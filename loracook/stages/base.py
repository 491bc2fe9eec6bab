"""What a stage is: the shape that every stage module fits, and what it is given to work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.training.lengthened import Shorter
from loracook.training.processes import ONE, Processes

if TYPE_CHECKING:
    from transformers import TrainerCallback


@dataclass(frozen=True)
class Consent:
    """What the user allows, adds or asks for when he runs a recipe; a recipe cannot do so itself."""

    push: bool = False
    overwrite: bool = False
    callbacks: tuple[TrainerCallback, ...] = ()
    processes: Processes = ONE


@dataclass(frozen=True)
class Folders:
    """Where a stage works: its own folder, those of the stages it reads, the run folder and the cache;
    `shorter` is a finished training that this one lengthens.
    """

    own: Path
    before: Mapping[str, Path]
    run: Path
    cache: Path
    shorter: Shorter | None = None


class Stage(Protocol):
    """A module under loracook/stages; the recipe section of the same name makes it part of a run."""

    READS: tuple[str, ...]
    """The recipe sections that decide the result."""

    RESUMES: bool
    """Whether it resumes from what an interrupted run left; otherwise it starts in an empty folder."""

    OUT_OF_MEMORY: str
    """What to write or do where it runs out of memory."""

    def after(self, recipe: Recipe) -> tuple[str, ...]:
        """Name the stages whose folders this one reads."""

    def files(self, recipe: Recipe) -> tuple[Path, ...]:
        """List the local files whose content decides the result; loads nothing heavy."""

    def describe(self, recipe: Recipe) -> str:
        """Say in one line, for the plan, what the stage will do."""

    def uploads_to(self, recipe: Recipe) -> str | None:
        """Name where the stage sends its result, None where it stays on this machine; needs consent."""

    def preflight(self, recipe: Recipe, consent: Consent) -> None:
        """Raise LoracookError for what would fail later: called before the first stage of a run starts."""

    def accept(self, recipe: Recipe, folder: Path) -> None:
        """Raise GateError where the result in `folder` is not what the recipe requires to go on."""

    def run(
        self, recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress
    ) -> dict[str, Any]:
        """Do the work in `folders.own` and return what the record should state, as plain JSON values.

        Files promised outside of `folders.own` are given as `elsewhere`: facts by their paths from it.
        """
