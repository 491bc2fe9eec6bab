"""The verb plan: the stages of a recipe, their folders, and which are done."""

from __future__ import annotations

from pathlib import Path

import click

from loracook.cli.options import recipe_argument, runs_option, set_option
from loracook.errors import clean
from loracook.planner import Plan, plan
from loracook.recipe import load


@click.command(short_help="Say what a run would do, and what is done already.")
@recipe_argument
@runs_option
@set_option
def command(recipe: Path, runs: Path, overrides: tuple[str, ...]) -> None:
    """Say what `loracook run RECIPE` would do; nothing is changed, fetched or loaded."""
    for line in lines(plan(load(recipe, overrides), runs)):
        click.echo(clean(line))


def lines(planned: Plan) -> list[str]:
    """The plan as aligned lines: each stage with its state, its folder and what it does."""
    recipe = planned.recipe
    about = f": {recipe['description']}" if "description" in recipe else ""
    rows = [(stage.name, "done" if stage.done else "to do", stage) for stage in planned.stages]
    folder = max(len(str(stage.folder)) for stage in planned.stages)
    stages = [f"  {name:<10}{state:<7}{stage.folder!s:<{folder}}  {stage.summary}" for name, state, stage in rows]
    faults = [f"  {stage.name} will be run again: {stage.fault}" for stage in planned.stages if stage.fault]
    return [f"{recipe.name}{about}", *stages, *faults]
