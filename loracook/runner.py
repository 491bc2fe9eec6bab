"""Carry out a plan: one stage after the other, each with a record that makes it done."""

import shutil
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loracook.errors import LoracookError, dotted
from loracook.machine.faults import machine_errors
from loracook.machine.memory import give_back
from loracook.machine.versions import versions
from loracook.planner import Plan, PlannedStage, examined, plan
from loracook.progress import Kept, Progress, Silent
from loracook.recipe.kept import KEPT, kept
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import entries
from loracook.stages import STAGES
from loracook.stages.base import Consent, Folders
from loracook.store.code_names import leave_out_code
from loracook.store.files import file_facts, mismatch, sync_all
from loracook.store.folders import RUNS, default_cache
from loracook.store.lock import locked, make_run_folder
from loracook.store.record import FAILURE, RECORD, keeping_failure, read_record, weight_hashes, write_record
from loracook.store.run_folder import LATEST

CHECKPOINTS = "checkpoints"
"""The folder of a stage that its record does not cover: checkpoints have manifests of their own."""
NOTES = 1000
"""Sentences of a stage that its record keeps: the last ones, of which each evaluation in training is one."""
NO_CONSENT, SILENT = Consent(), Silent()


def run(
    recipe: Recipe,
    *,
    runs: Path = RUNS,
    only: str | None = None,
    consent: Consent = NO_CONSENT,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, dict[str, Any]]:
    """Run what is not done of a recipe and return the records of its stages by name.

    Args:
        recipe: what `loracook.load` gave.
        runs: the folder that holds one run folder for each recipe name.
        only: run this stage alone; those before it must be done.
        consent: what the user allowed beyond this machine.
        cache: the folder of converted models and prepared data.
        progress: shows how far the run is.

    Raises:
        LoracookError: something the user can fix; its `exit_code` says of which kind.
    """
    return carry_out(plan(recipe, runs), only=only, consent=consent, cache=cache, progress=progress)


def carry_out(
    planned: Plan,
    *,
    only: str | None = None,
    consent: Consent = NO_CONSENT,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, dict[str, Any]]:
    """Run what is not done of a plan; arguments, result and errors are those of `run`."""
    recipe = planned.recipe
    chosen = _allowed(recipe, _chosen(planned, only), consent, progress=progress)
    to_do = [stage for stage in chosen if not stage.done]
    if len(to_do) > 1:  # a single stage finds out by itself, right away
        for stage in to_do:
            STAGES[stage.name].preflight(recipe, consent)
    if to_do:
        _run_stages(planned, chosen, consent=consent, cache=cache or default_cache(), progress=progress)
    check_gates(planned, chosen)
    done = (stage for stage in planned.stages if stage.done or stage in chosen)
    return {stage.name: read_record(stage.folder) for stage in done}


def upload_to_allow(planned: Plan, only: str | None = None) -> str | None:
    """Where the stages that are still to be run would upload to, which requires consent; None for nowhere."""
    to_do = (stage for stage in planned.to_do if only in (None, stage.name))
    uploads = (STAGES[stage.name].uploads_to(planned.recipe) for stage in to_do)
    return next(filter(None, uploads), None)


def _chosen(planned: Plan, only: str | None) -> tuple[PlannedStage, ...]:
    if only is None:
        return planned.stages
    stage = next((stage for stage in planned.stages if stage.name == only), None)
    if stage is None:
        names = ", ".join(stage.name for stage in planned.stages)
        raise LoracookError(f"the recipe has no stage '{only}'; it has {names}")
    missing = [earlier.name for earlier in planned.to_do if earlier.name in stage.before]
    if missing:
        raise LoracookError(f"{only} needs {missing[0]}, which is not done; run without --only first")
    return (stage,)


def _allowed(
    recipe: Recipe, chosen: tuple[PlannedStage, ...], consent: Consent, *, progress: Progress
) -> tuple[PlannedStage, ...]:
    """The chosen stages without uploads that the user has not allowed."""
    uploads = {stage.name: STAGES[stage.name].uploads_to(recipe) for stage in chosen}
    if consent.push or not any(uploads.values()):
        return chosen
    kept = tuple(stage for stage in chosen if not uploads[stage.name])
    skipped = [stage.name for stage in chosen if uploads[stage.name] and not stage.done]
    if skipped and not kept:
        STAGES[skipped[0]].preflight(recipe, consent)
    for name in skipped:
        progress.note(f"{name} is skipped: uploading to '{uploads[name]}' requires --push")
    return kept


def _run_stages(
    planned: Plan, stages: tuple[PlannedStage, ...], *, consent: Consent, cache: Path, progress: Progress
) -> None:
    """Run what is not done; each stage is examined in its turn, since the one before may have changed."""
    make_run_folder(planned.folder)
    with locked(planned.folder):
        for stage in map(examined, stages):
            if not stage.done:
                check_gates(planned, planned.up_to(stage.name)[:-1])
                _run_stage(planned, stage, consent=consent, cache=cache, progress=progress)


def check_gates(planned: Plan, stages: Iterable[PlannedStage]) -> None:
    """Raise GateError where the result of one of these stages is not what the recipe requires."""
    for stage in stages:
        STAGES[stage.name].accept(planned.recipe, stage.folder)


def _run_stage(
    planned: Plan, stage: PlannedStage, *, consent: Consent, cache: Path, progress: Progress
) -> None:
    noted = Kept(progress)
    if stage.fault:
        noted.note(f"running {stage.name} again: {stage.fault}")
    module = STAGES[stage.name]
    with (
        keeping_failure(stage.folder, stage.before.values()),
        machine_errors(stage.name, stage.folder, cache, advice=module.OUT_OF_MEMORY),
    ):
        _begin(stage)
        before = {name: _verified(folder) for name, folder in stage.before.items()}
        folders = Folders(stage.folder, before, planned.folder, cache, stage.lengthens)
        give_back()  # the model of the stage before, which may fill a GPU
        progress.begin(stage.name)
        began = time.monotonic()
        result = module.run(planned.recipe, folders, consent=consent, progress=noted)
        if not planned.recipe.own_code:
            leave_out_code(stage.folder, exclude=stage.folder / CHECKPOINTS)
        (stage.folder / KEPT).write_text(kept(planned.recipe, stage.folder), "utf-8")
        record = _record(planned.recipe, stage, result, seconds=time.monotonic() - began)
        record["notes"] = noted.notes[-NOTES:]
        sync_all(stage.folder, exclude=stage.folder / CHECKPOINTS)
        write_record(stage.folder, record)
        _link_latest(planned.folder, stage)
    progress.end(record)


def _begin(stage: PlannedStage) -> None:
    """Make a stage's folder: without record or failure, and empty unless it resumes from what is there."""
    if not STAGES[stage.name].RESUMES:
        shutil.rmtree(stage.folder, ignore_errors=True)
    stage.folder.mkdir(exist_ok=True)
    for name in (RECORD, FAILURE):
        (stage.folder / name).unlink(missing_ok=True)


def _verified(folder: Path) -> Path:
    """The folder of a finished stage, every file of it verified by its record."""
    if problem := mismatch(folder, read_record(folder)["files"]):
        raise LoracookError(f"{folder}/{problem}; remove {folder} to run the stage again")
    return folder


def _record(recipe: Recipe, stage: PlannedStage, result: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    sections = {name: recipe[name] for name in STAGES[stage.name].READS if name in recipe}
    elsewhere = result.pop("elsewhere", {})
    return {
        "stage": stage.name,
        "digest": stage.digest,
        "name": recipe.name,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "recipe": str(recipe.file),
        "warnings": list(map(str, recipe.warnings)),
        "own_code": recipe.own_code,
        "sections": sections,
        "origins": {dotted(path): str(recipe.origin(path)) for path, _ in entries(sections)},
        "result": result,
        "before": weight_hashes(stage.before.values()),
        "read": stage.files,
        "versions": versions(),
        # Checkpoints may be deleted to save space.
        "files": file_facts(stage.folder, exclude=stage.folder / CHECKPOINTS) | elsewhere,
    }


def _link_latest(run: Path, stage: PlannedStage) -> None:
    latest = run / LATEST
    latest.mkdir(exist_ok=True)
    part = latest / f".{stage.name}.part"
    part.unlink(missing_ok=True)
    part.symlink_to(Path("..") / stage.folder.name)
    part.replace(latest / stage.name)
