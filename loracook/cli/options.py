"""Arguments and options that several commands share."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from loracook.recipe.allowed import allowed
from loracook.store.folders import RUNS
from loracook.training.processes import AUTO, STRATEGIES


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

strategy_option = click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default=AUTO,
    show_default=True,
    help="What each process has of the base model: all of it (ddp), or a part of each layer (fsdp2).",
)


def allow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for what only the user can allow; the command gets them as one value, `allowed`."""

    @click.option(
        "--allow-path",
        "allow_paths",
        multiple=True,
        metavar="DIR",
        type=click.Path(exists=True, path_type=Path),
        help="Let the recipe read files there, outside of its repository. Can be repeated.",
    )
    @click.option(
        "--allow-code",
        "allow_code",
        multiple=True,
        metavar="ID@COMMIT",
        help="Run the base model's own code, of exactly this commit (40 digits). Can be repeated.",
    )
    @wraps(command)
    def with_allowed(*, allow_paths: tuple[Path, ...], allow_code: tuple[str, ...], **arguments: Any) -> Any:
        return command(**arguments, allowed=allowed(allow_paths, allow_code))

    return with_allowed
