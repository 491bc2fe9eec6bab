"""The command clean: what could go of runs and the cache, and with --yes its removal."""

from pathlib import Path

import click

from loracook.cli.options import Folder
from loracook.cli.screen import show
from loracook.errors import LockedError, LoracookError, MachineError
from loracook.store.folders import RUNS, default_cache
from loracook.store.lock import refuse_locked
from loracook.store.runs import run_folders


@click.command()
@click.argument("folder", default=RUNS, type=Folder(path_type=Path))
@click.option("--yes", is_flag=True, help="Remove what is listed.")
def command(*, folder: Path, yes: bool) -> int:
    """List what could go of the runs in FOLDER and of the cache, with sizes; remove it with --yes.

    That is: checkpoints of finished stages, stages that newer ones have superseded, what killed runs left
    behind, and prepared rows of other versions. What `latest` links to is kept, and what a run resumes from.
    """
    if not folder.is_dir():
        raise LoracookError(f"'{folder}' is no folder; name the one that contains the run folders")
    from loracook.results.clean import clean_run, removed, spare_in_cache, spare_in_run
    from loracook.views.clean_text import as_lines

    spare, notes, code = spare_in_cache(default_cache()), [], 0
    spare = removed(spare) if yes else spare
    for run in run_folders(folder):
        try:
            refuse_locked(run)
            spare += clean_run(run) if yes else spare_in_run(run)
        except (LockedError, MachineError) as error:
            notes.append(f"skipping {run}: {error}")
            code = error.exit_code if yes else 0
    show([*as_lines(spare, "freed" if yes else f"to remove it: loracook clean {folder} --yes"), *notes])
    return code
