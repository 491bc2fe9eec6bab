"""The command compare: what several runs came to, side by side."""

import json
from pathlib import Path

import click

from loracook.cli.options import allow_options, runs_option, set_option
from loracook.cli.screen import show
from loracook.errors import LoracookError
from loracook.recipe.allowed import Allowed


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN|RECIPE...")
@runs_option
@set_option
@allow_options
@click.option(
    "--rows", default=0, metavar="N", type=click.IntRange(0), help="Show the N rows that differ most."
)
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    *,
    names: tuple[str, ...],
    runs: Path,
    overrides: tuple[str, ...],
    allowed: Allowed,
    rows: int,
    kind: str,
) -> None:
    """Say which of several runs is better at what, by how much, and whether that is more than chance.

    A run is named by its folder, its name below the runs folder, the folder of a stage in it, or its recipe;
    --set applies to the last one. Differences are those on the rows that all of them have.
    """
    if len(names) < 2:
        raise LoracookError("name two runs or more; to list them: loracook runs")
    from loracook.results.compare import compared
    from loracook.results.find import find
    from loracook.views.compare_json import as_json
    from loracook.views.compare_text import as_lines

    *others, last = names
    found = [find(name, runs, allowed=allowed) for name in others]
    comparison = compared([*found, find(last, runs, overrides=overrides, allowed=allowed)])
    if kind == "json":
        click.echo(json.dumps(as_json(comparison, rows), indent=2))
    else:
        show(as_lines(comparison, rows))
