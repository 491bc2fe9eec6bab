"""The verb run: plan, stages, result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from loracook.cli.options import recipe_argument, runs_option, set_option
from loracook.cli.plan import lines
from loracook.cli.result import result_lines
from loracook.cli.screen import Screen, noise_to
from loracook.errors import clean
from loracook.planner import Plan, plan
from loracook.recipe import load
from loracook.stages.base import Consent
from loracook.stages.push import needs_consent


@click.command(short_help="Run a recipe: train, then what else it has a section for.")
@recipe_argument
@runs_option
@set_option
@click.option("--only", metavar="STAGE", help="Run this stage alone; those before it must be done.")
@click.option("--push", is_flag=True, help="Let the recipe's push stage upload to the hub.")
@click.option("--overwrite", is_flag=True, help="Let it upload into a repository that already holds files.")
def command(
    recipe: Path, runs: Path, overrides: tuple[str, ...], only: str | None, push: bool, overwrite: bool
) -> None:
    """Run what is not done of RECIPE; started again, it goes on where it stopped."""
    loaded = load(recipe, overrides)
    for warning in loaded.warnings:
        click.echo(str(warning), err=True)
    planned = plan(loaded, runs)
    for line in (*lines(planned), ""):
        click.echo(clean(line))
    if planned.to_do or only:
        _cook(planned, runs, only=only, consent=Consent(_push_allowed(planned, push), overwrite))
    else:
        click.echo("everything is done; nothing was run")
    for line in result_lines(plan(loaded, runs)):
        click.echo(clean(line))


def _cook(planned: Plan, runs: Path, *, only: str | None, consent: Consent) -> None:
    from loracook import signals
    from loracook.memory import keep_freed_memory
    from loracook.runner import run

    keep_freed_memory()
    with signals.catching(), noise_to(planned.folder / "log.txt") as out:
        run(planned.recipe, runs=runs, only=only, consent=consent, progress=Screen(out))


def _push_allowed(planned: Plan, push: bool) -> bool:
    """Whether the user lets the run upload; asked before training, and only on a terminal."""
    pushing = any(stage.name == "push" for stage in planned.to_do) and needs_consent(planned.recipe)
    if push or not pushing or not sys.stdin.isatty():
        return push
    target: dict[str, Any] = planned.recipe["push"]
    return click.confirm(f"upload to {target['repo_id']} when it is trained?")
