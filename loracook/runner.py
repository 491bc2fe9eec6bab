"""Carry a plan out: one stage after the other, each with a record that makes it done."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.disk import broken_file, file_facts
from loracook.errors import LoracookError, dotted
from loracook.guards import locked, mended
from loracook.language.tree import entries
from loracook.planner import RUNS, Plan, PlannedStage, plan
from loracook.record import RECORD, read_record, write_record
from loracook.stages import STAGES
from loracook.stages.base import Consent, Folders, Progress, Silent
from loracook.stages.push import before_training, needs_consent
from loracook.versions import versions

if TYPE_CHECKING:
    from loracook.recipe import Recipe

NOTHING_MORE, UNSEEN = Consent(), Silent()
RESUMED = ("train", "push")
"""Stages that go on from what an interrupted try has left; the others start from an empty folder."""


def run(
    recipe: Recipe,
    *,
    runs: Path = RUNS,
    only: str | None = None,
    consent: Consent = NOTHING_MORE,
    cache: Path | None = None,
    progress: Progress = UNSEEN,
) -> dict[str, dict[str, Any]]:
    """Run what is not done of a recipe and return the records of its stages by name.

    Args:
        recipe: what `loracook.load` gave.
        runs: the folder that holds one run folder for each recipe name.
        only: run this stage alone; those before it must be done.
        consent: what the user allowed beyond this machine.
        cache: where converted models and prepared data are kept.
        progress: is told how far the run is.

    Raises:
        LoracookError: something the user can mend; `exit_code` says of which kind.
    """
    planned = plan(recipe, runs)
    wanted = _allowed(recipe, _wanted(planned, only), consent, progress)
    if {"train", "push"} <= {stage.name for stage in wanted}:  # alone, it finds what it pushed
        before_training(recipe, consent)
    planned.folder.mkdir(parents=True, exist_ok=True)
    with locked(planned.folder):
        for stage in wanted:
            _run_stage(planned, stage, consent=consent, cache=cache or default_cache(), progress=progress)
    return {
        stage.name: read_record(stage.folder) for stage in planned.stages if (stage.folder / RECORD).is_file()
    }


def default_cache() -> Path:
    """Where converted models and prepared data are kept: LORACOOK_CACHE, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("LORACOOK_CACHE") or Path(home) / "loracook")


def _wanted(planned: Plan, only: str | None) -> tuple[PlannedStage, ...]:
    if only is None:
        return planned.to_do
    stage = next((stage for stage in planned.stages if stage.name == only), None)
    if stage is None:
        names = ", ".join(stage.name for stage in planned.stages)
        raise LoracookError(f"the recipe has no stage '{only}'; it has {names}")
    missing = [name for name in STAGES[only].after(planned.recipe) if _folder(planned, name) is None]
    if missing:
        raise LoracookError(f"{only} needs {missing[0]}, which is not done; run it without --only first")
    return () if stage.done else (stage,)


def _allowed(
    recipe: Recipe, wanted: tuple[PlannedStage, ...], consent: Consent, progress: Progress
) -> tuple[PlannedStage, ...]:
    """The wanted stages without an upload that the user has not allowed."""
    if consent.push or "push" not in recipe or not needs_consent(recipe):
        return wanted
    kept = tuple(stage for stage in wanted if stage.name != "push")
    if kept != wanted:
        progress.note("push is left out: nothing is uploaded without --push")
    return kept


def _folder(planned: Plan, name: str) -> Path | None:
    stage = next(stage for stage in planned.stages if stage.name == name)
    return stage.folder if (stage.folder / RECORD).is_file() else None


def _run_stage(
    planned: Plan, stage: PlannedStage, *, consent: Consent, cache: Path, progress: Progress
) -> None:
    if stage.fault:
        progress.note(f"{stage.name} is run again: {stage.fault}")
    if stage.name not in RESUMED:
        shutil.rmtree(stage.folder, ignore_errors=True)
    stage.folder.mkdir(exist_ok=True)
    (stage.folder / RECORD).unlink(missing_ok=True)
    before = {name: _verified(planned, name) for name in STAGES[stage.name].after(planned.recipe)}
    folders = Folders(stage.folder, before, planned.folder, cache)
    progress.begin(stage.name)
    began = time.monotonic()
    with mended(stage.name):
        result = STAGES[stage.name].run(planned.recipe, folders, consent=consent, progress=progress)
    record = _record(planned.recipe, stage, result, time.monotonic() - began)
    write_record(stage.folder, record)
    _link_latest(planned.folder, stage)
    progress.end(record)


def _verified(planned: Plan, name: str) -> Path:
    """The folder of a finished stage, every file of it held against its record."""
    folder = next(stage.folder for stage in planned.stages if stage.name == name)
    broken = broken_file(folder, read_record(folder)["files"])
    if broken:
        raise LoracookError(f"{folder / broken} is not as it was written; remove {folder} to make it again")
    return folder


def _record(recipe: Recipe, stage: PlannedStage, result: dict[str, Any], seconds: float) -> dict[str, Any]:
    sections = {name: recipe[name] for name in STAGES[stage.name].READS if name in recipe}
    return {
        "stage": stage.name,
        "digest": stage.digest,
        "name": recipe.name,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "sections": sections,
        "origins": {dotted(path): str(recipe.origin(path)) for path, _ in entries(sections)},
        "result": result,
        "versions": versions(),
        # Checkpoints have manifests of their own and may be removed to save room.
        "files": file_facts(stage.folder, leave_out=stage.folder / "checkpoints"),
    }


def _link_latest(run: Path, stage: PlannedStage) -> None:
    latest = run / "latest"
    latest.mkdir(exist_ok=True)
    part = latest / f".{stage.name}.part"
    part.unlink(missing_ok=True)
    part.symlink_to(Path("..") / stage.folder.name)
    part.replace(latest / stage.name)
