"""The command lock: write down what decides a recipe's result."""

from pathlib import Path

import click

from loracook.cli.options import allow_options, recipe_argument
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import load


@click.command()
@recipe_argument
@allow_options
def command(*, recipe: Path, allowed: Allowed) -> None:
    """Write RECIPE.lock: hashes of its files, commits on the hub, and versions that decide its result.

    `run --locked` and `validate --locked` refuse where one of them is another.
    """
    from loracook.results.pinned import write_lock

    click.echo(f"wrote {write_lock(load(recipe, (), allowed))}")
