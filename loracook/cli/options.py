"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Any

import click

from loracook.store.folders import RUNS


class Folder(click.Path):
    """A folder; refuses an empty name, which an unset shell variable gives, not to use the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the folder name is empty; use --runs DIR", param, ctx)
        return super().convert(value, param, ctx)


recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
runs_option = click.option(
    "--runs",
    default=RUNS,
    show_default=True,
    metavar="DIR",
    type=Folder(path_type=Path, file_okay=False),
    help="Folder that contains the run folders.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value, as in --set train.learning_rate=1e-4. Can be repeated.",
)
