"""The command report: one page that shows what a run did."""

from __future__ import annotations

from pathlib import Path

import click

from loracook.cli.options import allow_options, runs_option, set_option
from loracook.errors import LoracookError
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import load


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@runs_option
@set_option
@allow_options
def command(*, run: Path, runs: Path, overrides: tuple[str, ...], allowed: Allowed) -> None:
    """Write report.html into the folder of RUN: a run folder, its name, or its recipe.

    A run writes it by itself in the end; this makes it for an earlier run, or while one is training.
    """
    from loracook.planner import plan
    from loracook.views.report import write
    from loracook.views.shown_run import of_folder, of_plan

    folder = next((place for place in (run, runs / run) if place.is_dir()), None)
    if folder and overrides:
        raise LoracookError("--set requires a recipe; a run folder has its values")
    shown = of_folder(folder) if folder else of_plan(plan(load(run, overrides, allowed), runs))
    if not shown.folder.is_dir():
        raise LoracookError(f"'{shown.folder}' does not exist; run: loracook run {run}")
    click.echo(write(shown))
