"""The verb run: plan, stages, result."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loracook.cli.options import recipe_argument, runs_option, set_option
from loracook.cli.screen import Screen, noise_to
from loracook.errors import clean
from loracook.machine import signals
from loracook.recipe.recipe import load
from loracook.store.lock import make_run_folder, refuse_locked

if TYPE_CHECKING:
    from loracook.planner import Plan
    from loracook.stages.base import Consent

LOG = "log.txt"


@click.command(short_help="Run a recipe: train, then what else it has a section for.")
@recipe_argument
@runs_option
@set_option
@click.option("--only", metavar="STAGE", help="Run this stage alone; those before it must be done.")
@click.option("--push", is_flag=True, help="Let the recipe's push stage upload to the hub.")
@click.option("--overwrite", is_flag=True, help="Let it upload into a repository that already holds files.")
@signals.stopping_on_signals()
def command(
    recipe: Path, runs: Path, overrides: tuple[str, ...], only: str | None, push: bool, overwrite: bool
) -> None:
    """Run what is not done of RECIPE; started again, it goes on where it stopped."""
    loaded = load(recipe, overrides)
    refuse_locked(runs / loaded.name)  # what follows, its imports too, takes longer than a refusal may
    from loracook.planner import examined, plan
    from loracook.stages.base import Consent
    from loracook.views.plan_text import lines
    from loracook.views.result_text import result_lines

    planned = plan(loaded, runs)
    for warning in loaded.warnings:
        click.echo(str(warning), err=True)
    for line in (*lines(planned), ""):
        click.echo(clean(line))
    consent = Consent(_push_allowed(planned, only, push), overwrite)
    if nothing := _nothing_to_do(planned, only, consent):
        click.echo(nothing)
    else:
        _cook(planned, only, consent)
        planned = replace(planned, stages=tuple(map(examined, planned.stages)))
    for line in result_lines(planned, only):
        click.echo(clean(line))


def _nothing_to_do(planned: Plan, only: str | None, consent: Consent) -> str:
    from loracook.stages.push import needs_consent

    left = [stage.name for stage in planned.to_do]
    if not left and only is None:
        return "everything is done; nothing was run"
    if left == ["push"] and only is None and needs_consent(planned.recipe) and not consent.push:
        return "everything but the push is done; nothing was run"
    done = any(stage.done for stage in planned.stages if stage.name == only)
    return f"{only} is done; nothing was run" if done else ""


def _cook(planned: Plan, only: str | None, consent: Consent) -> None:
    from loracook.machine.memory import keep_freed_memory
    from loracook.runner import carry_out

    keep_freed_memory()
    make_run_folder(planned.folder, LOG)
    with noise_to(planned.folder / LOG) as out:
        carry_out(planned, only=only, consent=consent, progress=Screen(out))


def _push_allowed(planned: Plan, only: str | None, push: bool) -> bool:
    """Whether the user lets the run upload; asked before training, and only on a terminal."""
    from loracook.stages.push import needs_consent

    pushing = "push" in {stage.name for stage in planned.to_do} and only in (None, "push")
    if push or not pushing or not needs_consent(planned.recipe) or not sys.stdin.isatty():
        return push
    return click.confirm(f"upload to {planned.recipe['push']['repo_id']} when it is trained?")
