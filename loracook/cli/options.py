"""Arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loracook.store.folders import RUNS


class Folder(click.Path):
    """A folder, as a path; no text at all would be the working folder, which is a shell variable's slip."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("no folder is named; write --runs DIR", param, ctx)
        return super().convert(value, param, ctx)


recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
runs_option = click.option(
    "--runs",
    default=RUNS,
    show_default=True,
    metavar="DIR",
    type=Folder(path_type=Path, file_okay=False),
    help="The folder for run folders.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value, as in --set train.learning_rate=1e-4; any number of times.",
)
