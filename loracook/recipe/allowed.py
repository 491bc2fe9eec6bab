"""What a user allows recipes besides the files of their own repository; no recipe can allow it itself."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import LoracookError, Path, Problem, RecipeError, quote
from loracook.recipe.locations import HUB_ID
from loracook.recipe.source import Source, read
from loracook.store.folders import SNAPSHOTS

VARIABLE = "LORACOOK_ALLOW_PATHS"
KEY = "allow_paths"
CODE = re.compile(HUB_ID.pattern + "@[0-9a-f]{40}", re.ASCII)
CODE_USAGE = "use --allow-code organization/name@commit, with all 40 digits of the commit"
USAGE = f"use '{KEY}: [/folder, ~/folder]'"


@dataclass(frozen=True)
class Allowed:
    """Folders and files that a recipe may read outside of its repository, links followed, and the base models
    whose own code may be run, each as org/model@commit.
    """

    paths: tuple[FilePath, ...] = ()
    code: frozenset[str] = frozenset()

    def and_path(self, path: FilePath) -> "Allowed":
        """The same, and another path."""
        return replace(self, paths=(*self.paths, _place(path)))


NOTHING = Allowed()


def allowed(paths: Iterable[str | FilePath] = (), code: Iterable[str] = ()) -> Allowed:
    """What a user allows: these paths and this code, and the paths of environment and configuration file.

    Raises:
        LoracookError: code without its commit.
        RecipeError: the configuration file is wrong.
    """
    code = frozenset(code)
    if wrong := next((name for name in code if not CODE.fullmatch(name)), None):
        raise LoracookError(f"{quote(wrong)} does not say which code; {CODE_USAGE}")
    of_variable = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    every = (*paths, *of_variable, *_configured(config_file()))
    return Allowed(tuple(dict.fromkeys(map(_place, every))), code)


def _place(path: str | FilePath) -> FilePath:
    """The real place of a path; of a commit in the hub's cache its repository, whose blobs it links to."""
    real = FilePath(os.path.realpath(os.path.expanduser(path)))
    return real.parent.parent if real.parent.name == SNAPSHOTS else real


def code_problems(base: Mapping[str, Any], allowed: Allowed) -> Iterator[Problem]:
    """A problem where code of a base model is allowed at another commit than the recipe names."""
    commits = [name.partition("@")[2] for name in allowed.code if name.startswith(f"{base['name_or_path']}@")]
    if commits and base.get("revision") not in commits:
        message = f"--allow-code allows the code of another commit; write revision: {commits[0]}"
        yield Problem(("base_model", "revision"), message, "own-code")


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


def _problems(source: Source) -> Iterator[Problem]:
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
