"""The command launch: a recipe as a job file for a cluster."""

import re
import sys
from pathlib import Path

import click

from loracook import __version__
from loracook.cli.options import allow_options, recipe_argument, runs_option, set_option
from loracook.errors import LoracookError, clean, quote
from loracook.recipe.allowed import Allowed
from loracook.recipe.recipe import load
from loracook.store.files import write_new
from loracook.store.folders import RUNS
from loracook.training.processes import divided
from loracook.views.launch import KINDS, Job, job_text

TIME = re.compile(r"(?:\d+-)?\d+(?::\d+){0,2}", re.ASCII)


@click.command()
@recipe_argument
@click.option("--on", "kind", type=click.Choice(list(KINDS)), required=True, help="Where the job is to run.")
@click.option("--nodes", type=click.IntRange(1, 1024), default=1, show_default=True, help="Number of nodes.")
@click.option(
    "--gpus",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="GPUs on each node; 0 for one process on the CPU.",
)
@click.option("--time", metavar="HH:MM:SS", help="Time limit of a Slurm job.")
@runs_option
@set_option
@allow_options
@click.option("--push", is_flag=True, help="Allow the job to upload to the hub.")
@click.option("--write", metavar="FILE", type=click.Path(path_type=Path), help="Write the job to a new file.")
def command(
    *,
    recipe: Path,
    kind: str,
    nodes: int,
    gpus: int,
    time: str | None,
    runs: Path,
    overrides: tuple[str, ...],
    allowed: Allowed,
    push: bool,
    write: Path | None,
) -> None:
    """Print a job that runs RECIPE on a cluster; nothing is started.

    What your cluster needs besides is edited in the file.
    """
    if time is not None and kind != "slurm":
        raise LoracookError(f"--time is for --on slurm; set the time limit of {kind} in the file")
    if time is not None and not TIME.fullmatch(time):
        raise LoracookError(f"{quote(time)} is not a time limit; use HH:MM:SS or DAYS-HH:MM:SS")
    loaded = load(recipe, overrides, allowed)
    divided(loaded, nodes * max(gpus, 1))
    passed_on = (
        *(f"--set={text}" for text in overrides),
        *(f"--allow-path={path}" for path in allowed.paths),
        *(f"--allow-code={name}" for name in sorted(allowed.code)),
        *(["--push"] if push else ()),
    )
    size = (f"--nodes={nodes}", f"--gpus={gpus}", *([f"--time={time}"] if time else ()))
    kept = () if runs == RUNS else (f"--runs={runs}",)
    job = Job(
        recipe=loaded,
        version=__version__,
        made_by=("loracook", "launch", str(recipe), f"--on={kind}", *size, *kept, *passed_on),
        nodes=nodes,
        gpus=gpus,
        runs=None if runs == RUNS else runs,
        options=passed_on,
        folder=Path.cwd(),
        environment=Path(sys.prefix) if sys.prefix != sys.base_prefix else None,
        time=time,
    )
    _refuse_other_bytes(str(job.folder), *job.made_by)
    text = job_text(kind, job)
    if write is None:
        click.echo(text, nl=False)
        return
    write_new(write, text)
    click.echo(f"wrote {clean(str(write))}")


def _refuse_other_bytes(*texts: str) -> None:
    """Raise LoracookError where a file name or an argument is not text, which no job file can hold."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise LoracookError(f"{quote(text)} is not valid UTF-8; use another name") from error
