"""`loracook explain`: what a key means, its type and default, and where its value comes from."""

from pathlib import Path

import click

from loracook.cli.options import recipe_argument, set_option
from loracook.recipe.recipe import load
from loracook.views.explain import explain


@click.command()
@recipe_argument
@click.argument("key")
@set_option
def command(recipe: Path, key: str, overrides: tuple[str, ...]) -> None:
    """Explain KEY (such as lora.r): its meaning, type, value in RECIPE, and the argument it is passed as."""
    click.echo(explain(load(recipe, overrides), key))
