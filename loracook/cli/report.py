"""The command report: one page that shows what a run did."""

from pathlib import Path

import click

from loracook.cli.options import allow_options, runs_option, set_option
from loracook.errors import LoracookError
from loracook.recipe.allowed import Allowed


@click.command()
@click.argument("name", metavar="RUN|RECIPE")
@runs_option
@set_option
@allow_options
def command(*, name: str, runs: Path, overrides: tuple[str, ...], allowed: Allowed) -> None:
    """Write report.html into the folder of a run: its outcome, answers, curves, data, cost and recipe.

    A run is named by its folder, its name below the runs folder, the folder of a stage in it, or its recipe.
    It writes the page by itself in the end; this makes it for an earlier run, or while one is training.
    """
    from loracook.results.find import find, find_recipe
    from loracook.views.report import write
    from loracook.views.shown_run import of_plan, of_run

    recipe = find_recipe(name, runs, overrides=overrides, allowed=allowed)
    if recipe is None:
        click.echo(write(of_run(find(name, runs))))
        return
    from loracook.planner import plan

    planned = plan(recipe, runs)
    if not planned.folder.is_dir():
        raise LoracookError(f"nothing of '{recipe.file}' was run; run: loracook run {recipe.file}")
    click.echo(write(of_plan(planned)))
