"""`loracook diff`: two recipes compared by their effective values."""

from pathlib import Path

import click

from loracook.cli.options import allow_options, set_option
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import load
from loracook.views.diff import diff


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@set_option
@allow_options
def command(*, before: Path, after: Path, overrides: tuple[str, ...], allowed: Allowed) -> None:
    """Print the values that differ from BEFORE to AFTER and their effect on a run; --set applies to AFTER."""
    click.echo(diff(load(before, (), allowed), load(after, overrides, allowed)))
