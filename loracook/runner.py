"""Carry a plan out: one stage after the other, each with a record that makes it done."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError, dotted
from loracook.machine.faults import mended
from loracook.machine.versions import versions
from loracook.planner import RUNS, Plan, PlannedStage, examined, plan
from loracook.progress import Progress, Silent
from loracook.recipe.schema import entries
from loracook.stages import STAGES
from loracook.stages.base import Consent, Folders
from loracook.stages.push import before_training, check_consent, needs_consent
from loracook.store.cache_dir import default_cache
from loracook.store.files import broken_file, file_facts
from loracook.store.lock import locked, make_run_folder
from loracook.store.record import RECORD, made_of, read_record, write_record

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

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
    return carry_out(plan(recipe, runs), only=only, consent=consent, cache=cache, progress=progress)


def carry_out(
    planned: Plan,
    *,
    only: str | None = None,
    consent: Consent = NOTHING_MORE,
    cache: Path | None = None,
    progress: Progress = UNSEEN,
) -> dict[str, dict[str, Any]]:
    """Run what is not done of a plan; arguments, result and errors are those of `run`."""
    recipe = planned.recipe
    chosen = _allowed(recipe, _chosen(planned, only), consent, progress)
    # A push alone finds what it pushed before.
    if {"train", "push"} <= {stage.name for stage in chosen if not stage.done}:
        before_training(recipe, consent)
    if not all(stage.done for stage in chosen):
        _cook(planned, chosen, consent=consent, cache=cache or default_cache(), progress=progress)
    done = (stage for stage in planned.stages if stage.done or stage in chosen)
    return {stage.name: read_record(stage.folder) for stage in done}


def _chosen(planned: Plan, only: str | None) -> tuple[PlannedStage, ...]:
    if only is None:
        return planned.stages
    stage = next((stage for stage in planned.stages if stage.name == only), None)
    if stage is None:
        names = ", ".join(stage.name for stage in planned.stages)
        raise LoracookError(f"the recipe has no stage '{only}'; it has {names}")
    missing = [earlier.name for earlier in planned.to_do if earlier.name in stage.before]
    if missing:
        raise LoracookError(f"{only} needs {missing[0]}, which is not done; run it without --only first")
    return (stage,)


def _allowed(
    recipe: Recipe, chosen: tuple[PlannedStage, ...], consent: Consent, progress: Progress
) -> tuple[PlannedStage, ...]:
    """The chosen stages without an upload that the user has not allowed."""
    if consent.push or "push" not in recipe or not needs_consent(recipe):
        return chosen
    kept = tuple(stage for stage in chosen if stage.name != "push")
    if any(stage.name == "push" and not stage.done for stage in chosen):
        if not kept:
            check_consent(recipe, consent)
        progress.note("push is left out: nothing is uploaded without --push")
    return kept


def _cook(
    planned: Plan, stages: tuple[PlannedStage, ...], *, consent: Consent, cache: Path, progress: Progress
) -> None:
    """Run what is not done, each stage looked at in its turn: the one before may have come out otherwise."""
    make_run_folder(planned.folder)
    with locked(planned.folder):
        for stage in map(examined, stages):
            if not stage.done:
                _run_stage(planned, stage, consent=consent, cache=cache, progress=progress)


def _run_stage(
    planned: Plan, stage: PlannedStage, *, consent: Consent, cache: Path, progress: Progress
) -> None:
    if stage.fault:
        progress.note(f"{stage.name} is run again: {stage.fault}")
    with mended(stage.name, stage.folder, cache):
        _begin(stage)
        before = {name: _verified(folder) for name, folder in stage.before.items()}
        folders = Folders(stage.folder, before, planned.folder, cache)
        progress.begin(stage.name)
        began = time.monotonic()
        result = STAGES[stage.name].run(planned.recipe, folders, consent=consent, progress=progress)
        record = _record(planned.recipe, stage, result, time.monotonic() - began)
        write_record(stage.folder, record)
        _link_latest(planned.folder, stage)
    progress.end(record)


def _begin(stage: PlannedStage) -> None:
    """Have the folder of a stage, without a record, and empty unless the stage goes on from what is there."""
    if stage.name not in RESUMED:
        shutil.rmtree(stage.folder, ignore_errors=True)
    stage.folder.mkdir(exist_ok=True)
    (stage.folder / RECORD).unlink(missing_ok=True)


def _verified(folder: Path) -> Path:
    """The folder of a finished stage, every file of it held against its record."""
    if broken := broken_file(folder, read_record(folder)["files"]):
        raise LoracookError(f"{folder / broken} is not as it was written; remove {folder} to make it again")
    return folder


def _record(recipe: Recipe, stage: PlannedStage, result: dict[str, Any], seconds: float) -> dict[str, Any]:
    sections = {name: recipe[name] for name in STAGES[stage.name].READS if name in recipe}
    elsewhere = result.pop("elsewhere", {})
    return {
        "stage": stage.name,
        "digest": stage.digest,
        "name": recipe.name,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "sections": sections,
        "origins": {dotted(path): str(recipe.origin(path)) for path, _ in entries(sections)},
        "result": result,
        "before": made_of(stage.before.values()),
        "versions": versions(),
        # Checkpoints have manifests of their own and may be removed to save room.
        "files": file_facts(stage.folder, leave_out=stage.folder / "checkpoints") | elsewhere,
    }


def _link_latest(run: Path, stage: PlannedStage) -> None:
    latest = run / "latest"
    latest.mkdir(exist_ok=True)
    part = latest / f".{stage.name}.part"
    part.unlink(missing_ok=True)
    part.symlink_to(Path("..") / stage.folder.name)
    part.replace(latest / stage.name)
