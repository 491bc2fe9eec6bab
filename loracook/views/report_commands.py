"""Commands that go on from a run, ready to be copied into a shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from loracook.errors import clean
from loracook.model.serving import Serving
from loracook.recipe.locations import is_local
from loracook.recipe.yaml_values import flow
from loracook.views.serving import Places, read_servings, serve_commands
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
        ("train its first steps again, and compare losses", f"loracook repeat {folder}"),
        ("see every row as it was trained", f"loracook preview {recipe} --format html > preview.html"),
        ("make this page anew", f"loracook report {folder}"),
    ]


def servings_of(shown: Shown) -> list[Serving]:
    """What the stages that are done say of serving."""
    records = [shown.record(name) for name in ("train", "merge")]
    return read_servings(record["result"] for record in records if record)


def serving(shown: Shown, servings: Sequence[Serving]) -> list[tuple[str, str]]:
    """What each command does that serves a result, and the command; none without a base model."""
    base = shown.sections.get("base_model")
    if not isinstance(base, Mapping) or "name_or_path" not in base:
        return []
    name, local = str(base["name_or_path"]), is_local(base)
    word = _word(str(Path(shown.file).parent / name) if local else name)
    revision = "" if local else str(base.get("revision") or "")
    places = Places(
        name=_word(shown.name),
        base=word,
        revision=f" --revision {_word(revision)}" if revision else "",
        converter_base=f"--{'base' if local else 'base-model-id'} {word}",
        adapter=_word(f"{shown.place('train')}/adapter"),
        merged=_word(f"{shown.place('merge')}/model"),
    )
    return list(serve_commands(servings, places))


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
