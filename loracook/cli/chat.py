"""The command chat: talk to the adapter that a run trained, to its base model, or to the merged model."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loracook.cli.options import allow_options, runs_option, set_option
from loracook.cli.screen import noise_to
from loracook.errors import LoracookError, MachineError, quote
from loracook.recipe.allowed import Allowed
from loracook.recipe.kept import KEPT
from loracook.recipe.recipe import Recipe, load
from loracook.store.folders import default_cache
from loracook.store.record import why_not_done
from loracook.store.run_folder import LATEST, check_run_folder
from loracook.store.runs import newest

if TYPE_CHECKING:
    from loracook.cli.dialog import Dialog

Stages = Mapping[str, Path]


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@runs_option
@set_option
@allow_options
@click.option("--base", is_flag=True, help="Begin with the base model.")
@click.option("--merged", is_flag=True, help="Talk to the merged model.")
def command(
    *, run: Path, runs: Path, overrides: tuple[str, ...], allowed: Allowed, base: bool, merged: bool
) -> None:
    """Talk to what RUN trained: a run folder, its name below the runs folder, or the recipe that was run.

    Answers come as evaluation generates them; `/help` lists what can be typed. Reads lines from a pipe, too.
    """
    if base and merged:
        raise click.UsageError("--merged has no base model beside it; use one of --base and --merged")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is typed need not be text in the terminal's encoding
    if run.is_file():
        recipe, stages = _of_recipe(load(run, overrides, allowed), runs)
    else:
        folder = _run_folder(run, runs)
        stages = _finished(folder)
        # Its paths may lead to where the recipe would lie by default: beside the folder of all runs.
        recipe = load(stages["train"] / KEPT, overrides, allowed.and_path(folder.parent.absolute().parent))
    if sys.stdin.isatty():
        click.echo(f"loading {'the merged model' if merged else 'base model and adapter'}", err=True)
    with noise_to(Path(os.devnull)):
        dialog = _merged(recipe, stages) if merged else _tuned(recipe, stages, "base" if base else "adapter")
    dialog.run()


def _of_recipe(recipe: Recipe, runs: Path) -> tuple[Recipe, Stages]:
    """A recipe, and the folders of its stages that are done; raises LoracookError without training."""
    from loracook.planner import plan

    done = {stage.name: stage.folder for stage in plan(recipe, runs).stages if stage.done}
    if "train" not in done:
        raise LoracookError(
            f"{quote(recipe.file)} is not trained as it is now; run: loracook run {recipe.file}"
        )
    return recipe, done


def _run_folder(run: Path, runs: Path) -> Path:
    """A run folder by its path, or by its name below `runs`; raises LoracookError where there is none."""
    folder = next((place for place in (run, runs / run) if (place / LATEST).is_dir()), None)
    if folder is None:
        raise LoracookError(f"{quote(run)} is neither a recipe nor a run in '{runs}'; use --runs DIR")
    check_run_folder(folder)
    return folder


def _finished(folder: Path) -> Stages:
    """The newest training of a run, and the merge of it if there is one; raises without training."""
    stages = newest(folder)
    train, merge = stages.get("train"), stages.get("merge")
    if train is None or not (train / KEPT).is_file():
        raise LoracookError(f"'{folder}' has no finished training with its {KEPT}; name the recipe instead")
    if (fault := why_not_done(train, ())) is not None:
        raise MachineError(f"'{train}': {fault or 'not finished'}; run the recipe again")
    return {"train": train} | ({"merge": merge} if merge and why_not_done(merge, [train]) is None else {})


def _tuned(recipe: Recipe, stages: Stages, side: str) -> Dialog:
    """A dialog with the adapter and its base model, which `side` begins."""
    from loracook import model
    from loracook.cli.dialog import SIDES, Dialog

    adapter = stages["train"] / "adapter"
    base = model.load_model(recipe, model.fetch(recipe, default_cache()))
    tuned = model.load_tuned(recipe, base, adapter)
    return Dialog(recipe, tuned, model.saved_tokenizer(recipe, adapter), sides=SIDES, chosen=(side,))


def _merged(recipe: Recipe, stages: Stages) -> Dialog:
    """A dialog with the merged model."""
    from loracook import model
    from loracook.cli.dialog import Dialog

    if "merge" not in stages:
        raise LoracookError("the run has no merged model; write 'merge: {}' in its recipe and run it again")
    folder = stages["merge"] / "model"
    tokenizer = model.saved_tokenizer(recipe, folder)
    merged = model.load_merged(recipe, folder)
    return Dialog(recipe, merged, tokenizer, sides=("merged",), chosen=("merged",))
