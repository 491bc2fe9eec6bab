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
from loracook.errors import LoracookError
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import Recipe
from loracook.results.find import trained
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
    recipe, found = trained(run, runs, overrides=overrides, allowed=allowed)
    if sys.stdin.isatty():
        click.echo(f"loading {'the merged model' if merged else 'base model and adapter'}", err=True)
    with noise_to(Path(os.devnull)):
        dialog = (
            _merged(recipe, found.stages)
            if merged
            else _tuned(recipe, found.stages, "base" if base else "adapter")
        )
    with going_on_without_reader(sys.stdout):
        dialog.run()


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
    import peft  # noqa: F401  # else the first answer imports it, and prints what bitsandbytes warns of

    from loracook import model
    from loracook.cli.dialog import Dialog

    if "merge" not in stages or why_not_done(stages["merge"], [stages["train"]]) is not None:
        raise LoracookError("the run has no merged model; write 'merge: {}' in its recipe and run it again")
    folder = stages["merge"] / "model"
    tokenizer = model.saved_tokenizer(recipe, folder)
    merged = model.load_merged(recipe, folder)
    return Dialog(recipe, merged, tokenizer, sides=("merged",), chosen=("merged",))
