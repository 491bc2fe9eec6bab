"""`loracook show`: the effective recipe with the origin of every value."""

from pathlib import Path

import click

from loracook.cli.options import allow_options, recipe_argument, set_option
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import load
from loracook.views.show import as_json, as_yaml

FORMATS = {"yaml": as_yaml, "json": as_json}


@click.command()
@recipe_argument
@set_option
@allow_options
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="yaml", show_default=True)
def command(*, recipe: Path, overrides: tuple[str, ...], allowed: Allowed, kind: str) -> None:
    """Print RECIPE with its parents, --set and defaults applied, and the origin of every value."""
    click.echo(FORMATS[kind](load(recipe, overrides, allowed)))
