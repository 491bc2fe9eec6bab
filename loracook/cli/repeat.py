"""The command repeat: the first steps of a training again, held against what it logged."""

import os
from pathlib import Path

import click

from loracook.cli.options import allow_options, runs_option, set_option
from loracook.cli.screen import noise_to, screen, show
from loracook.errors import LoracookError, MachineError
from loracook.recipe.allowed import Allowed
from loracook.results.find import trained
from loracook.store.folders import default_cache
from loracook.training import group


@click.command()
@click.argument("name", metavar="RUN|RECIPE")
@runs_option
@set_option
@allow_options
@click.option(
    "--steps", default=4, show_default=True, type=click.IntRange(1), help="How many steps to train, at least."
)
def command(*, name: str, runs: Path, overrides: tuple[str, ...], allowed: Allowed, steps: int) -> None:
    """Train the first steps of RUN again and compare the losses with those that it logged.

    They are the same bit for bit on a CPU of the same kind with the same versions and number of threads;
    elsewhere they have to be close. A file, row or commit that has changed is refused by name.
    """
    if group.size() > 1:
        raise LoracookError("the losses are repeated in one process; unset WORLD_SIZE, or leave out torchrun")
    recipe, run = trained(name, runs, overrides=overrides, allowed=allowed)
    from loracook.results.repeated import repeat
    from loracook.views.repeat_text import as_lines, verdict

    with noise_to(Path(os.devnull)) as out, screen(out) as progress:
        progress.begin("repeat")
        repeated = repeat(recipe, run.stages["train"], steps=steps, cache=default_cache(), progress=progress)
    show(as_lines(repeated))
    if repeated.largest_difference > repeated.bound:
        raise MachineError(verdict(repeated))
    show([verdict(repeated)])
