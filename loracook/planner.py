"""What a run of a recipe would do: its stages, their folders, and which are done."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loracook.errors import RecipeError, quote
from loracook.model.start_from import started
from loracook.recipe.layers import with_value
from loracook.recipe.locations import LOCAL, local_paths
from loracook.recipe.recipe import Recipe
from loracook.stages import STAGES
from loracook.store.files import sha256
from loracook.store.folders import RUNS
from loracook.store.record import why_not_done
from loracook.store.run_folder import LATEST, check_run_folder
from loracook.training.checkpoints import newest_name
from loracook.training.lengthened import Shorter, shorter

LOGGING = {"logging_steps", "logging_strategy", "logging_first_step"}
SAVING = {"save_steps", "save_strategy"}
UNDECISIVE = {"save_total_limit", "require"} | LOGGING
"""Keys that do not change the result: on a full disk, lowering one lets training resume, not start over. So
does how often a checkpoint is saved, unless the best one is the result."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage of this run: `digest` covers all that decides its result, `before` has the folders it reads,
    `fault` says why it has to run again, `resumes_from` names the checkpoint that it resumes from,
    `lengthens` is the shorter training that it starts with otherwise, and `files` has the name and SHA-256 of
    each local file that it reads.
    """

    name: str
    folder: Path
    digest: str
    summary: str
    before: Mapping[str, Path]
    done: bool = False
    fault: str = ""
    resumes_from: str = ""
    lengthens: Shorter | None = None
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Plan:
    """The stages of a recipe in order, below one run folder."""

    recipe: Recipe
    folder: Path
    stages: tuple[PlannedStage, ...]

    @property
    def to_do(self) -> tuple[PlannedStage, ...]:
        """The stages that are still to be run."""
        return tuple(stage for stage in self.stages if not stage.done)

    def up_to(self, name: str | None) -> tuple[PlannedStage, ...]:
        """The stages that are run up to one and with it, whether it reads them or not; all without a name."""
        names = [stage.name for stage in self.stages]
        return self.stages if name is None else self.stages[: names.index(name) + 1]


def plan(recipe: Recipe, runs: Path = RUNS) -> Plan:
    """Plan a recipe below the folder `runs`; reads local data files, loads no heavy library, changes nothing.

    The recipe of the plan has what it leaves out of `lora` from the adapter that it starts from; one on the
    hub is downloaded.

    Raises:
        RecipeError: a local file that the recipe names does not exist, or contradicts it.
        MachineError: the run folder, or something in it, leads elsewhere.
    """
    folder = runs / recipe.name
    check_run_folder(folder)
    _refuse_own_newest(recipe, folder)
    recipe = started(recipe)
    stages: dict[str, PlannedStage] = {}
    for name in STAGES:
        if name in recipe:
            stages[name] = _planned(recipe, name, folder, before=stages)
    return Plan(recipe, folder, tuple(stages.values()))


def _refuse_own_newest(recipe: Recipe, run: Path) -> None:
    """Raise RecipeError where training would start from what it replaces, so that no run were the last."""
    start = recipe["lora"].get("start_from", "")
    place = os.path.abspath(recipe.reach.folder / start)
    if start.startswith(LOCAL) and Path(place).is_relative_to(os.path.abspath(run / LATEST)):
        folder = os.path.relpath(os.path.realpath(place), os.path.realpath(recipe.reach.folder))
        named = folder if folder.startswith("../") else f"./{folder}"
        message = f"would be another adapter after this run; write {quote(named)}, or another 'name:'"
        raise RecipeError([recipe.problem(("lora", "start_from"), message)])


def examined(stage: PlannedStage) -> PlannedStage:
    """The stage, done or not by the present state of its folder and of those before it."""
    fault = why_not_done(stage.folder, stage.before.values())
    checkpoint = "" if fault is None else newest_name(stage.folder / "checkpoints")
    return replace(stage, done=fault is None, fault=fault or "", resumes_from=checkpoint)


def _planned(recipe: Recipe, name: str, run: Path, *, before: Mapping[str, PlannedStage]) -> PlannedStage:
    stage = STAGES[name]
    missing = [needed for needed in stage.after(recipe) if needed not in before]
    if missing:
        message = f"requires the section '{missing[0]}'; write '{missing[0]}: {{}}'"
        raise RecipeError([recipe.problem((name,), message)])
    decides = _decides(recipe, name, before)
    digest = _digest(decides)
    reads = {earlier: before[earlier].folder for earlier in stage.after(recipe)}
    folder, read = run / f"{name}-{digest}", tuple(decides["files"])
    planned = examined(PlannedStage(name, folder, digest, stage.describe(recipe), reads, files=read))
    if planned.done or planned.resumes_from or not stage.RESUMES:
        return planned
    found = shorter(name, recipe["train"], run, digest=lambda train: _digest(_with_train(decides, train)))
    return replace(planned, lengthens=found)


def _decides(recipe: Recipe, name: str, before: Mapping[str, PlannedStage]) -> dict[str, Any]:
    """All that decides the result of a stage."""
    stage, sections = STAGES[name], _without_folders(recipe)
    return {
        "sections": {name: _deciding(sections[name]) for name in stage.READS if name in sections},
        "before": [before[earlier].digest for earlier in stage.after(recipe)],
        "files": [(path.name, sha256(path)) for path in stage.files(recipe)],
    }


def deciding(recipe: Recipe) -> str:
    """What the sections of a recipe decide, as text: the same for recipes with the same results.

    Local files count by their names alone, so that none is read.
    """
    sections = _without_folders(recipe)
    decides = {name: _deciding(sections[name]) for name in sections if name not in ("name", "description")}
    return json.dumps(decides, sort_keys=True, ensure_ascii=False)


def _with_train(decides: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """The same with another `train` section."""
    return {**decides, "sections": {**decides["sections"], "train": _deciding(train)}}


def _digest(decides: Mapping[str, Any]) -> str:
    text = json.dumps(decides, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _without_folders(recipe: Recipe) -> dict[str, Any]:
    """The sections with the name alone of each local path: the files decide, not where they lie."""
    sections = dict(recipe.sections)
    for path, text in local_paths(sections):
        sections = with_value(sections, path, os.path.basename(text.rstrip("/")))
    return sections


def _deciding(section: Any) -> Any:
    """A section without the keys that do not change the result."""
    if not isinstance(section, Mapping):
        return section
    left_out = UNDECISIVE if section.get("load_best_model_at_end") else UNDECISIVE | SAVING
    return {key: value for key, value in section.items() if key not in left_out}
