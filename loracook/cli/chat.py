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
from loracook.cli.screen import going_on_without_reader, noise_to
from loracook.errors import LoracookError, MachineError, quote
from loracook.model.start_from import started
from loracook.recipe.allowed import Allowed
from loracook.recipe.kept import KEPT
from loracook.recipe.recipe import Recipe, load
from loracook.results.find import find, find_recipe, of_recipe
from loracook.store.folders import default_cache
from loracook.store.record import why_not_done

if TYPE_CHECKING:
    from loracook.cli.dialog import Dialog


@click.command()
@click.argument("run", metavar="RUN")
@runs_option
@set_option
@allow_options
@click.option("--base", is_flag=True, help="Begin with the base model.")
@click.option("--merged", is_flag=True, help="Talk to the merged model.")
def command(
    *, run: str, runs: Path, overrides: tuple[str, ...], allowed: Allowed, base: bool, merged: bool
) -> None:
    """Talk to what RUN trained: a run folder, its name below the runs folder, or the recipe that was run.

    Answers come as evaluation generates them; `/help` lists what can be typed. Reads lines from a pipe, too.
    """
    if base and merged:
        raise click.UsageError("--merged has no base model beside it; use one of --base and --merged")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is typed need not be text in the terminal's encoding
    recipe, stages = _found(run, runs, overrides=overrides, allowed=allowed)
    if sys.stdin.isatty():
        click.echo(f"loading {'the merged model' if merged else 'base model and adapter'}", err=True)
    with noise_to(Path(os.devnull)):
        dialog = _merged(recipe, stages) if merged else _tuned(recipe, stages, "base" if base else "adapter")
    with going_on_without_reader(sys.stdout):
        dialog.run()


def _found(
    text: str, runs: Path, *, overrides: tuple[str, ...], allowed: Allowed
) -> tuple[Recipe, Mapping[str, Path]]:
    """The recipe of what a user names, and its finished stages; raises LoracookError without training."""
    recipe = find_recipe(text, runs, overrides=overrides, allowed=allowed)
    run = find(text, runs) if recipe is None else of_recipe(recipe, runs)
    train = run.stages.get("train")
    if train is None:
        raise LoracookError(f"{quote(text)} has no finished training; run its recipe again")
    if fault := why_not_done(train, ()):
        raise MachineError(f"'{train}': {fault}; run its recipe again")
    if recipe is not None:
        return started(recipe), run.stages
    if not (train / KEPT).is_file():
        raise LoracookError(f"'{train}' has no {KEPT}; name the recipe that was run instead")
    # Its paths may lead to where a recipe lies by default: beside the folder of all runs.
    beside = run.folder.parent.absolute().parent
    return load(train / KEPT, (), allowed.and_path(beside)), run.stages


def _tuned(recipe: Recipe, stages: Mapping[str, Path], side: str) -> Dialog:
    """A dialog with the adapter and its base model, which `side` begins."""
    from loracook import model
    from loracook.cli.dialog import SIDES, Dialog

    adapter = stages["train"] / "adapter"
    base = model.load_model(recipe, model.fetch(recipe, default_cache()))
    tuned = model.load_tuned(recipe, base, adapter)
    return Dialog(recipe, tuned, model.saved_tokenizer(recipe, adapter), sides=SIDES, chosen=(side,))


def _merged(recipe: Recipe, stages: Mapping[str, Path]) -> Dialog:
    """A dialog with the merged model."""
    from loracook import model
    from loracook.cli.dialog import Dialog

    if "merge" not in stages or why_not_done(stages["merge"], [stages["train"]]) is not None:
        raise LoracookError("the run has no merged model; write 'merge: {}' in its recipe and run it again")
    folder = stages["merge"] / "model"
    tokenizer = model.saved_tokenizer(recipe, folder)
    merged = model.load_merged(recipe, folder)
    return Dialog(recipe, merged, tokenizer, sides=("merged",), chosen=("merged",))
