"""What people name: a recipe, a run folder, the folder of a stage in it, or a name below the runs folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from loracook.errors import LoracookError, MachineError, RecipeError, quote
from loracook.model.start_from import started
from loracook.recipe.allowed import NOTHING, Allowed
from loracook.recipe.did_you_mean import closest
from loracook.recipe.kept import KEPT
from loracook.recipe.recipe import Recipe, load
from loracook.store.folders import RUNS
from loracook.store.record import why_not_done
from loracook.store.run_folder import LATEST, check_run_folder
from loracook.store.runs import (
    STAGE,
    Run,
    finished_runs,
    is_run_folder,
    newest,
    run_folders,
    run_of,
    with_name,
)

RECIPES = (".yaml", ".yml", ".json")


def find(text: str, runs: Path = RUNS, *, overrides: tuple[str, ...] = (), allowed: Allowed = NOTHING) -> Run:
    """The finished stages of what a user names.

    A recipe stands for its own stages; a run folder, or its name below `runs`, for those that `latest` names;
    the folder of a stage for the run that it is part of.

    Raises:
        RecipeError: the recipe is wrong.
        LoracookError: there is nothing of that name, or nothing of it is finished.
        MachineError: something in the run folder leads elsewhere.
    """
    recipe = find_recipe(text, runs, overrides=overrides, allowed=allowed)
    return _found(text, runs) if recipe is None else of_recipe(recipe, runs)


def find_recipe(
    text: str, runs: Path = RUNS, *, overrides: tuple[str, ...] = (), allowed: Allowed = NOTHING
) -> Recipe | None:
    """The recipe that a user names, None where he names a run; raises RecipeError."""
    is_recipe = os.path.isfile(text) or (text.endswith(RECIPES) and place(text, runs) is None)
    if is_recipe:
        return load(text, overrides, allowed)
    if overrides:
        raise LoracookError(
            f"--set changes a recipe, and {quote(text)} is none; name the recipe, or leave it out"
        )
    return None


def of_recipe(recipe: Recipe, runs: Path = RUNS) -> Run:
    """The finished stages of a recipe; raises LoracookError where there are none."""
    from loracook.planner import plan  # a fifth of a second that naming a run does not need

    planned = plan(recipe, runs)
    stages = {stage.name: stage.folder for stage in planned.stages if stage.done}
    if not stages:
        raise LoracookError(f"nothing of '{recipe.file}' is finished; run: loracook run {recipe.file}")
    start = next(iter(stages.values()))
    name = next(
        (run.name for run in finished_runs(planned.folder) if start in run.stages.values()), recipe.name
    )
    return Run(name, planned.folder, stages)


def trained(text: str, runs: Path, *, overrides: tuple[str, ...], allowed: Allowed) -> tuple[Recipe, Run]:
    """The finished training of what a user names, with the recipe that it keeps or that he names.

    Raises:
        LoracookError: there is none.
        MachineError: its files are not as they were written.
    """
    recipe = find_recipe(text, runs, overrides=overrides, allowed=allowed)
    run = find(text, runs) if recipe is None else of_recipe(recipe, runs)
    train = run.stages.get("train")
    if train is None:
        raise LoracookError(f"{quote(text)} has no finished training; run its recipe again")
    if fault := why_not_done(train, ()):
        raise MachineError(f"'{train}': {fault}; run its recipe again")
    if recipe is not None:
        return started(recipe), run
    if not (train / KEPT).is_file():
        raise LoracookError(f"'{train}' has no {KEPT}; name the recipe that was run instead")
    # Its paths may lead to where a recipe lies by default: beside the folder of all runs.
    beside = run.folder.parent.absolute().parent
    try:
        return load(train / KEPT, (), allowed.and_path(beside)), run
    except RecipeError as error:
        error.add_note("or name the recipe that was run instead")
        raise


def _found(text: str, runs: Path) -> Run:
    named = place(text, runs)
    if named is None:
        raise LoracookError(_unknown(text, runs))
    found = run_of(named) if STAGE.fullmatch(named.name) else next(reversed(finished_runs(named)), None)
    if found is None:
        raise LoracookError(f"nothing in '{named}' is finished; run its recipe again to resume it")
    return found


def place(text: str, runs: Path) -> Path | None:
    """The run folder, or the folder of a stage in one, that a text names."""
    return (
        next((found for path in (Path(text), runs / text) for found in _places(path)), None) if text else None
    )


def _places(path: Path) -> Iterator[Path]:
    path = with_name(path)
    if is_run_folder(path):
        yield path
    if STAGE.fullmatch(path.name) and path.is_dir() and is_run_folder(path.parent):
        check_run_folder(path.parent)
        yield path
    if path.parent.name == LATEST and is_run_folder(path.parent.parent):
        check_run_folder(path.parent.parent)
        yield from filter(None, [newest(path.parent.parent).get(path.name)])


def _unknown(text: str, runs: Path) -> str:
    names = [folder.name for folder in run_folders(runs)] if runs.is_dir() else []
    match = closest(text, names)
    advice = f"did you mean {quote(match)}?" if match else "to list the runs: loracook runs"
    return f"{quote(text)} is neither a recipe nor a run in '{runs}'; {advice}"
