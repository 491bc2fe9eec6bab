"""A run as its report shows it, from a recipe or from its folder: stages, effective recipe, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracook.errors import dotted
from loracook.planner import Plan
from loracook.recipe.yaml_values import rows as yaml_rows
from loracook.stages import STAGES
from loracook.store.record import RECORD, read_failure, read_record
from loracook.store.runs import Run, stage_folders
from loracook.views.show import effective, origin_of


@dataclass(frozen=True)
class Stage:
    """A stage of a run: its folder, its record where it is done, else why it is not; `failure` is the error
    that it ended with.
    """

    name: str
    folder: Path
    record: Mapping[str, Any] | None
    why: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Shown:
    """What a report is made of: the stages in order, the effective recipe, and how the last command ended.

    `origins` are those of `sections` by dotted path; `file` is the recipe's, as it was named.
    """

    name: str
    folder: Path
    stages: tuple[Stage, ...]
    sections: Mapping[str, Any]
    origins: Mapping[str, str]
    file: str
    ended: str = ""

    @property
    def failures(self) -> list[str]:
        """Why stages failed, and why the last command ended early where that is something else."""
        failed = [stage for stage in self.stages if stage.failure]
        again = [] if self.ended in ("", *(stage.failure for stage in failed)) else [self.ended]
        return [
            *(f"{stage.name} failed: {stage.failure}" for stage in failed),
            *(f"The last command ended early: {why}" for why in again),
        ]

    def record(self, name: str) -> Mapping[str, Any] | None:
        """The record of a stage that is done."""
        return next((stage.record for stage in self.stages if stage.name == name), None)

    def place(self, name: str) -> Path | None:
        """The folder of a stage, done or not."""
        return next((stage.folder for stage in self.stages if stage.name == name), None)


def of_plan(planned: Plan, ended: str = "") -> Shown:
    """What the report of a recipe's run shows."""
    recipe = planned.recipe
    values, upstream = effective(recipe)
    origins = {dotted(path): origin_of(recipe, path, upstream) for _, path in yaml_rows(values) if path}
    stages = tuple(_stage(stage.name, stage.folder) for stage in planned.stages)
    return Shown(recipe.name, planned.folder, stages, values, origins, str(recipe.file), ended)


def of_run(run: Run) -> Shown:
    """What the report of finished stages shows, and of those that failed after them."""
    places = {**_failed(run), **run.stages}
    stages = tuple(_stage(name, places[name]) for name in STAGES if name in places)
    records = [stage.record for stage in stages if stage.record]
    sections = {name: section for record in records for name, section in record["sections"].items()}
    origins = {path: origin for record in records for path, origin in record["origins"].items()}
    file = next((str(record["recipe"]) for record in records if "recipe" in record), "recipe.yaml")
    return Shown(run.name, run.folder, stages, sections, origins, file)


def _stage(name: str, folder: Path) -> Stage:
    if not (folder / RECORD).is_file():
        failure, _ = read_failure(folder)
        why = "failed" if failure else "started, not done" if folder.exists() else "not done"
        return Stage(name, folder, None, why, failure)
    try:
        return Stage(name, folder, read_record(folder))
    except (OSError, ValueError):
        return Stage(name, folder, None, f"{RECORD} is corrupt")


def _failed(run: Run) -> dict[str, Path]:
    """The folders of stages that failed on what the run made, by the name of the stage."""
    made = {folder.name for folder in run.stages.values()}
    found = {}
    for folder, name in sorted(stage_folders(run.folder).items(), key=lambda each: each[0].stat().st_mtime):
        failure, before = read_failure(folder)
        if failure and made >= set(before):
            found[name] = folder
    return found
