"""Commands that go on from a run, ready to be copied into a shell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from loracook.errors import clean
from loracook.recipe.yaml_values import flow
from loracook.views.shown_run import Shown

OVERRIDDEN = "--set"
"""The origin of a value that the command line set."""


def commands(shown: Shown) -> list[tuple[str, str]]:
    """What each command does, and the command."""
    overridden = [path for path, origin in shown.origins.items() if origin.startswith(OVERRIDDEN)]
    values = {path: _at(shown.sections, path) for path in overridden}
    name = shown.folder.name
    if "name" not in shown.sections and name != Path(shown.file).stem:
        values["name"] = name  # a record does not say where its name is written
    given = "".join(f" --set {quote(f'{path}={flow(value)}')}" for path, value in values.items())
    recipe, runs, folder = (
        _word(shown.file) + given,
        _word(str(shown.folder.parent)),
        _word(str(shown.folder)),
    )
    merge = "" if "merge" in shown.sections else " --set 'merge={}'"
    return [
        ("run again, which does only what is missing", f"loracook run {recipe} --runs {runs}"),
        ("merge adapter and base model", f"loracook run {recipe}{merge} --runs {runs} --only merge"),
        ("talk to it", f"loracook chat {folder}"),
        ("see what the adapter changed in each module", f"loracook inspect {folder}"),
        ("repeat it from the start, in another folder", f"loracook run {recipe} --runs again"),
        ("see every row as it was trained", f"loracook preview {recipe} --format html > preview.html"),
        ("make this page anew", f"loracook report {folder}"),
    ]


def _word(text: str) -> str:
    """One word of a command, which no option and no control character can hide in."""
    text = clean(text)
    return quote(f"./{text}" if text.startswith("-") else text)


def _at(sections: Mapping[str, Any], path: str) -> Any:
    value: Any = sections
    for name in path.split("."):
        if isinstance(value, list):
            value = value[int(name)] if name.isdigit() and int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value
