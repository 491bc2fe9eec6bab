"""The command run: plan, stages, result."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loracook.cli.options import (
    allow_options,
    recipe_argument,
    runs_option,
    set_option,
    strategy_option,
)
from loracook.cli.screen import noise_to, show
from loracook.errors import GateError, MachineError
from loracook.progress import Silent
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import Recipe, load
from loracook.stages.base import Consent
from loracook.store.lock import make_run_folder, refuse_locked
from loracook.training import group
from loracook.training.processes import Processes, default

if TYPE_CHECKING:
    from loracook.planner import Plan, PlannedStage

LOG = "log.txt"


@click.command()
@recipe_argument
@runs_option
@set_option
@allow_options
@click.option("--only", metavar="STAGE", help="Run only this stage; those before it must be done.")
@click.option(
    "--push",
    is_flag=True,
    help="Allow the recipe's push stage to upload to the hub; asked on a terminal if left out.",
)
@click.option("--locked", is_flag=True, help="Refuse what differs from RECIPE.lock.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Train in so many processes; by default one for each GPU of this machine.",
)
@strategy_option
@click.option("--overwrite", is_flag=True, help="Allow uploading into a repository that already has files.")
def command(
    *,
    recipe: Path,
    runs: Path,
    overrides: tuple[str, ...],
    allowed: Allowed,
    only: str | None,
    push: bool,
    locked: bool,
    processes: int | None,
    strategy: str,
    overwrite: bool,
) -> int:
    """Run the stages of RECIPE that are not done; after an interruption, run it again to resume.

    Under torchrun, srun and others it trains in the processes that they have started.
    """
    group.join()
    if group.size() > 1 and processes not in (None, group.size()):
        raise click.UsageError(f"{group.size()} processes were started around this; leave out --processes")
    loaded = load(recipe, overrides, allowed)
    if not group.is_first():
        return _follow()
    with group.followed():
        refuse_locked(runs / loaded.name)  # what follows, its imports too, takes longer than a refusal may
        _meet()
        if locked:
            _refuse_drift(loaded)
        spread = Processes(_count(loaded, processes), strategy)
        planned = _planned(loaded, runs)
        consent = Consent(_upload_allowed(planned, only, push=push), overwrite, processes=spread)
        _run_what_is_to_do(planned, only, consent)
    return 0


def _meet() -> None:
    """Join the processes beside this one before plan and data take longer than they wait for it."""
    from loracook.machine.memory import keep_freed_memory

    if group.size() > 1:
        keep_freed_memory()
        with noise_to(Path(os.devnull)):
            group.meet()


def _refuse_drift(loaded: Recipe) -> None:
    from loracook.results.pinned import here, hub_commits, refuse_drift

    refuse_drift(loaded, here(loaded))
    refuse_drift(loaded, hub_commits(loaded))


def _planned(loaded: Recipe, runs: Path) -> Plan:
    """The plan of a recipe, its warnings and stages shown."""
    from loracook.planner import plan
    from loracook.views.plan_text import stage_lines

    planned = plan(loaded, runs)
    for warning in loaded.warnings:
        click.echo(str(warning), err=True)
    show((*stage_lines(planned), ""))
    return planned


def _count(loaded: Recipe, processes: int | None) -> int:
    """How many processes train: those that were started around this one, the user's, or one for each GPU.

    Raises MachineError where there are fewer GPUs than processes: NCCL refuses two processes on one.
    """
    from loracook.machine.devices import visible_gpus

    if group.size() > 1:
        return group.size()
    gpus = visible_gpus()
    if processes and 0 < gpus < processes:
        raise MachineError(f"--processes {processes} requires a GPU for each; use at most {gpus}")
    return processes or default(loaded, gpus)


def _run_what_is_to_do(planned: Plan, only: str | None, consent: Consent) -> None:
    from loracook.views.result_text import result_lines, unmet_lines

    try:
        if reason := _nothing_to_do(planned, only, consent):
            click.echo(reason)
            _check_gates(planned, planned.up_to(only))
        else:
            _run(planned, only, consent)
    except GateError:
        show(unmet_lines(_now(planned)))
        raise
    show(result_lines(_now(planned), only))


def _follow() -> int:
    """Train beside the first process, which says all there is to say; gives its exit code."""
    from loracook.rank import follow

    with noise_to(Path(os.devnull)):
        return follow()


def _check_gates(planned: Plan, stages: tuple[PlannedStage, ...]) -> None:
    """Raise GateError where one of these stages is not what the recipe requires; its report says so, too."""
    if "require" not in planned.recipe.sections.get("evaluate", {}):
        return
    from loracook.runner import check_gates
    from loracook.views.report import reported

    with reported(planned, Silent()):
        check_gates(planned, stages)


def _now(planned: Plan) -> Plan:
    """The plan with what is done by now."""
    from loracook.planner import examined

    return replace(planned, stages=tuple(map(examined, planned.stages)))


def _nothing_to_do(planned: Plan, only: str | None, consent: Consent) -> str:
    from loracook.runner import upload_to_allow

    to_do = [stage.name for stage in planned.to_do]
    if not to_do and only is None:
        return "everything is done; nothing was run"
    if len(to_do) == 1 and only is None and upload_to_allow(planned) and not consent.push:
        return f"everything but {to_do[0]} is done; nothing was run"
    done = any(stage.done for stage in planned.stages if stage.name == only)
    return f"{only} is done; nothing was run" if done else ""


def _run(planned: Plan, only: str | None, consent: Consent) -> None:
    from loracook.cli.screen import screen
    from loracook.machine.memory import keep_freed_memory
    from loracook.runner import carry_out
    from loracook.views.report import reported

    keep_freed_memory()
    make_run_folder(planned.folder, LOG)
    with noise_to(planned.folder / LOG) as out, screen(out) as progress, reported(planned, progress):
        carry_out(planned, only=only, consent=consent, progress=progress)


def _upload_allowed(planned: Plan, only: str | None, *, push: bool) -> bool:
    """Whether the user allows an upload; asked before training, and only on a terminal."""
    from loracook.runner import upload_to_allow

    repo_id = upload_to_allow(planned, only)
    if push or repo_id is None or not sys.stdin.isatty():
        return push
    return click.confirm(f"upload to {repo_id} once it is trained?")
