"""What a user allows recipes besides the files of their own repository; no recipe can allow it itself."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath

from loracook.errors import Path, Problem, RecipeError, quote
from loracook.recipe.source import Source, read

VARIABLE = "LORACOOK_ALLOW_PATHS"
KEY = "allow_paths"
USAGE = f"use '{KEY}: [/folder, ~/folder]'"


@dataclass(frozen=True)
class Allowed:
    """Folders and files outside of a recipe's repository that it may read, links followed."""

    paths: tuple[FilePath, ...] = ()


NOTHING = Allowed()


def allowed(paths: Iterable[str | FilePath] = ()) -> Allowed:
    """What a user allows: these paths, those of LORACOOK_ALLOW_PATHS, and those of the configuration file.

    Raises:
        RecipeError: the configuration file is wrong.
    """
    of_variable = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    every = (*paths, *of_variable, *_configured(config_file()))
    real = (FilePath(os.path.realpath(os.path.expanduser(path))) for path in every)
    return Allowed(tuple(dict.fromkeys(real)))


def config_file() -> FilePath:
    """The user's own configuration file, whether or not there is one."""
    import click

    return FilePath(click.get_app_dir("loracook")) / "config.yaml"


def _configured(file: FilePath) -> list[str]:
    """The paths that a configuration file allows; raises RecipeError with all that is wrong with it."""
    if not os.path.exists(file):
        return []
    source = read(file)
    if problems := list(_problems(source)):
        raise RecipeError(problems)
    return list(source.data[KEY])


def _problems(source: Source) -> Iterable[Problem]:
    data = source.data
    if not isinstance(data, dict):
        yield _problem(source, (), f"not a mapping; {USAGE}")
        return
    for key in data:
        if key != KEY:
            yield _problem(source, (key,), f"unknown key; {USAGE}")
    paths = data.get(KEY)
    if not isinstance(paths, list):
        yield _problem(source, (KEY,) if KEY in data else (), f"not a list of paths; {USAGE}")
        return
    for index, path in enumerate(paths):
        if not isinstance(path, str) or not path.startswith(("/", "~")):
            yield _problem(source, (KEY, index), f"{quote(path)} is not an absolute path; {USAGE}")


def _problem(source: Source, path: Path, message: str) -> Problem:
    return Problem(path, message, "config", position=source.positions[path].key)
