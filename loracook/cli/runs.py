"""The command runs: every run below a folder in a line."""

import json
from pathlib import Path

import click

from loracook.cli.options import Folder
from loracook.cli.screen import show
from loracook.errors import LoracookError
from loracook.store.folders import RUNS


@click.command()
@click.argument("folder", default=RUNS, type=Folder(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(*, folder: Path, kind: str) -> None:
    """List the runs in FOLDER, the newest last: outcome, size on disk, and what they reached.

    FOLDER is the one that contains the run folders (./runs unless given), or a run folder.
    """
    if not folder.is_dir():
        raise LoracookError(f"'{folder}' is no folder; name the one that contains the run folders")
    from loracook.results.overview import overviews
    from loracook.views.runs_text import as_lines, as_values

    runs = overviews(folder)
    if kind == "json":
        click.echo(json.dumps(as_values(runs), indent=2))
    else:
        show(as_lines(runs) if runs else [f"no run in '{folder}'"])
