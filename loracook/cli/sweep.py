"""The command sweep: one recipe trained with different values, and the best of them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click

from loracook.cli.options import allow_options, runs_option
from loracook.cli.screen import going_on_without_reader, noise_to, show
from loracook.errors import LoracookError, MachineError, RecipeError, clean, quote
from loracook.recipe.allowed import Allowed
from loracook.store.files import write_atomic
from loracook.store.lock import locked, make_run_folder
from loracook.sweep.file import Sweep, load_sweep
from loracook.sweep.local_ray import ADDRESS, prepare
from loracook.sweep.table import ENDINGS, LOG, Row, Table, read_table

PACKAGES = ("ray", "optuna")
INSTALL = 'run: pip install "loracook[sweep]"'


@click.command()
@click.argument("sweep", metavar="SWEEP", type=click.Path(path_type=Path))
@runs_option
@allow_options
def command(*, sweep: Path, runs: Path, allowed: Allowed) -> None:
    """Train the recipe that SWEEP names with the values in it, and write a recipe of the best ones.

    Each trial is a run of its own in the runs folder, which `runs`, `compare` and `report` show. After an
    interruption, run it again: what is finished is not run again.

    RAY_ADDRESS names a Ray cluster to run the trials on; all of its machines need the same runs folder.
    """
    loaded = load_sweep(sweep, allowed)
    cpus, gpus = _resources(loaded)
    _refuse_missing()
    best = loaded.recipe.file.with_name(f"{loaded.name}-best.yaml")
    _refuse_foreign(best)
    table = read_table(loaded, runs)
    _make_folders(table)
    with locked(table.folder):
        _carry_out(table, best, cpus=cpus, gpus=gpus)


def _carry_out(table: Table, best: Path, *, cpus: int, gpus: int | None) -> None:
    from loracook.views.sweep_text import best_recipe, head, line, summary

    show([head(table.sweep), *(line(table.sweep, n, row) for n, row in enumerate(table.rows) if row.settled)])
    try:
        if len(table.rows) < table.sweep.trials or not all(row.settled for row in table.rows):
            _run(table, cpus=cpus, gpus=gpus)
    finally:
        _write_page(table)
    row = table.best()
    if row is not None:
        write_atomic(best, best_recipe(table, row))
    show(["", *summary(table, str(best))])
    if row is None:
        raise _all_failed(table)


def _run(table: Table, *, cpus: int, gpus: int | None) -> None:
    from loracook.views.sweep_text import line

    prepare()
    with noise_to(table.folder / LOG) as out:
        from loracook.sweep.search import carry_out

        def told(number: int, row: Row) -> None:
            if row.state in ENDINGS:
                with going_on_without_reader(out):
                    print(clean(line(table.sweep, number, row)), file=out, flush=True)

        carry_out(table, cpus=cpus, gpus=gpus, told=told)


def _write_page(table: Table) -> None:
    from loracook.views.sweep_html import FILE, as_html

    write_atomic(table.folder / FILE, as_html(table))


def _all_failed(table: Table) -> LoracookError:
    """The error of a sweep without a finished trial: the exit code is that of the last one that failed."""
    failed = [row for row in table.rows if row.code]
    error = LoracookError("no trial finished; the table says why")
    error.exit_code = failed[-1].code if failed else error.exit_code
    return error


def _make_folders(table: Table) -> None:
    make_run_folder(table.folder.parent, ".gitignore")
    make_run_folder(table.folder, LOG)


def _resources(sweep: Sweep) -> tuple[int, int | None]:
    """The CPU cores and GPUs of a trial, None where the cluster decides; raises RecipeError for too many."""
    from loracook.machine.devices import visible_gpus

    wanted = sweep.data.get("resources", {})
    cpus = wanted.get("cpus", 1)
    if os.environ.get(ADDRESS):
        return cpus, wanted.get("gpus")
    has = {"cpus": os.cpu_count() or 1, "gpus": visible_gpus() if wanted.get("gpus") != 0 else 0}
    problems = [
        sweep.problem(("resources", name), f"this machine has {count} {name}; use at most {count}")
        for name, count in has.items()
        if wanted.get(name, 0) > count
    ]
    if problems:
        raise RecipeError(problems)
    return cpus, wanted.get("gpus", min(has["gpus"], 1))


def _refuse_missing() -> None:
    for name in PACKAGES:
        if find_spec(name) is None:
            raise MachineError(f"{name} is not installed; {INSTALL}")


def _refuse_foreign(best: Path) -> None:
    """Raise LoracookError where the file for the best recipe is there, and not from a sweep."""
    from loracook.views.sweep_text import WRITTEN_BY

    if best.exists() and not best.read_bytes().startswith(WRITTEN_BY.encode()):
        advice = "rename it, or give the sweep another 'name:'"
        raise LoracookError(f"{quote(best)} is in the way of the best trial's recipe; {advice}")
