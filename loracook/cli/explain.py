"""`loracook explain`: what a key means, its type and default, and where its value comes from."""

from collections.abc import Callable, Sequence
from functools import partial

import click

from loracook.cli.options import allow_options, set_option
from loracook.errors import RecipeError
from loracook.recipe.allowed import Allowed
from loracook.recipe.layers import Layer
from loracook.recipe.recipe import layers_of, load
from loracook.recipe.validate import SUFFIXES
from loracook.views.explain import explain, explain_alone, explain_unchecked


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[RECIPE] KEY")
@set_option
@allow_options
def command(*, names: tuple[str, ...], overrides: tuple[str, ...], allowed: Allowed) -> None:
    """Explain KEY (such as lora.r): its meaning, type, the argument it becomes, and its value in RECIPE."""
    *recipes, key = names
    if len(recipes) > 1 or key.endswith(SUFFIXES):
        raise click.UsageError(
            "write a recipe and one of its keys, as in 'recipe.yaml lora.r', or a key alone"
        )
    if not recipes:
        click.echo(explain_alone(key))
        return
    try:
        click.echo(explain(load(recipes[0], overrides, allowed), key))
    except RecipeError as error:
        if any(problem.rule == "file" for problem in error.problems):
            raise
        click.echo(_of_invalid(partial(layers_of, recipes[0], overrides, allowed), key))
        count = len(error.problems)
        click.echo(
            f"{recipes[0]} has {count} problem{'s' if count > 1 else ''}; run: loracook validate {recipes[0]}"
        )


def _of_invalid(layers: Callable[[], Sequence[Layer]], key: str) -> str:
    """The explanation of a key, with its value where the text of the recipe can be read."""
    try:
        return explain_unchecked(layers(), key)
    except RecipeError:
        return explain_alone(key)
