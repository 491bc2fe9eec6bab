"""`loracook diff`: two recipes, or those that runs were made from, compared by their effective values."""

from pathlib import Path

import click

from loracook.cli.options import allow_options, runs_option, set_option
from loracook.recipe.allowed import Allowed
from loracook.results.recorded import alike, stated
from loracook.views.diff import diff


@click.command()
@click.argument("before", metavar="RECIPE|RUN")
@click.argument("after", metavar="RECIPE|RUN")
@runs_option
@set_option
@allow_options
def command(*, before: str, after: str, runs: Path, overrides: tuple[str, ...], allowed: Allowed) -> None:
    """Print the values that differ between two recipes, and their effect on a run; --set is for the second.

    A run, named by its folder or by its name below the runs folder, stands for the recipe it was made from.
    """
    first = stated(before, runs, allowed=allowed)
    second = stated(after, runs, overrides=overrides, allowed=allowed)
    click.echo(diff(*alike([first, second])))
