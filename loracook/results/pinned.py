"""The lock of a recipe: what decides its result, as it was when the user accepted it."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loracook.errors import LoracookError, MachineError, Problem, RecipeError, quote, shorten
from loracook.machine.versions import ROWS, WEIGHTS, installed
from loracook.recipe.derived import OTHER_TOKENIZER, other_tokenizer
from loracook.recipe.locations import LOCAL, is_local
from loracook.recipe.recipe import Recipe
from loracook.recipe.source import read
from loracook.recipe.yaml_values import rows
from loracook.store.files import sha256, write_atomic
from loracook.store.read_back import check_shape

Facts = dict[str, dict[str, str]]
SHAPE = {"lock": int, **{name: {str: str} for name in ("recipe", "files", "versions", "hub")}}
FORMAT = 1
SHOWN = 20
"""Differences that are shown; there is a file for each of a folder that has moved."""
LONGEST = 41
"""Characters of a hash; a commit has 40."""


def lock_file(recipe: Recipe) -> Path:
    """The lock beside a recipe."""
    return recipe.file.with_name(f"{recipe.file.name}.lock")


def write_lock(recipe: Recipe) -> Path:
    """Write the lock of a recipe, its keys sorted; asks the hub for commits, downloads no weights."""
    facts = here(recipe) | hub_commits(recipe)
    content: dict[str, Any] = {
        "lock": FORMAT,
        **{name: dict(sorted(facts[name].items())) for name in sorted(facts)},
    }
    write_atomic(lock_file(recipe), "".join(f"{line}\n" for line, _ in rows(content)))
    return lock_file(recipe)


def here(recipe: Recipe) -> Facts:
    """What is known without a network: the effective recipe, hashes of local files, and versions."""
    from loracook.stages import STAGES

    text = json.dumps({**recipe.sections, "name": recipe.name}, sort_keys=True)
    paths = {path for name, stage in STAGES.items() if name in recipe for path in stage.files(recipe)}
    names = {"loracook", *WEIGHTS, *ROWS}
    return {
        "recipe": {"sha256": hashlib.sha256(text.encode()).hexdigest()},
        "files": {_name(recipe, path): sha256(path) for path in paths},
        "versions": {name: installed(name) or "not installed" for name in names},
    }


def _name(recipe: Recipe, path: Path) -> str:
    """A file as seen from the recipe, or its own name where it lies outside of the repository."""
    reach = recipe.reach
    inside = path.is_relative_to(reach.root)
    return os.path.relpath(path, reach.folder.resolve()) if inside else "/".join(path.parts[-2:])


def hub_commits(recipe: Recipe) -> Facts:
    """The commit on the hub of the base model, the tokenizer, the adapter to start from and each data set."""
    return {"hub": dict(_commits(recipe))}


def _commits(recipe: Recipe) -> Iterator[tuple[str, str]]:
    from huggingface_hub import HfApi

    from loracook.data.read import sources
    from loracook.data.read.hub import translated_errors

    base, lora = recipe["base_model"], recipe["lora"]
    if not is_local(base):
        yield _cached(recipe, ("base_model", "name_or_path"), base.get("revision"), small="config.json")
    if not (other_tokenizer(recipe.sections) or LOCAL[0]).startswith(LOCAL):
        revision = recipe["tokenizer"].get("revision")
        yield _cached(recipe, OTHER_TOKENIZER, revision, small="tokenizer_config.json")
    if not lora.get("start_from", LOCAL[0]).startswith(LOCAL):
        yield _cached(
            recipe, ("lora", "start_from"), lora.get("start_from_revision"), small="adapter_config.json"
        )
    held_out = sources.evaluation(recipe)
    for source in (*sources.training(recipe), *([held_out] if held_out else [])):
        if not source.local:
            entry = source.entry
            with translated_errors(entry, source.fail):
                info = HfApi().dataset_info(entry["path"], revision=entry.get("revision"))
            yield f"{entry['path']}@{entry.get('revision', 'main')}", str(info.sha)


def _cached(recipe: Recipe, path: tuple[str, str], revision: str | None, *, small: str) -> tuple[str, str]:
    """The name of a repository, and the commit that one small file of it comes from."""
    from loracook.model.fetch import downloaded
    from loracook.store.folders import commit

    name = recipe[path[0]][path[1]]
    folder = downloaded(recipe, path, name=name, revision=revision, patterns=[small])
    return f"{name}@{revision or 'main'}", str(commit(folder))


def refuse_drift(recipe: Recipe, now: Mapping[str, Mapping[str, str]]) -> None:
    """Return where the lock of a recipe says the same as these facts.

    Raises:
        LoracookError: there is no lock, or the recipe, its files or commits are others.
        MachineError: the versions of packages alone are others.
    """
    locked = _read(recipe)
    differ = {name: list(_differences(locked[name], facts)) for name, facts in now.items()}
    versions = differ.pop("versions", [])
    advice = f"to accept it: loracook lock {recipe.file}"
    if lines := [line for found in differ.values() for line in found]:
        raise RecipeError(Problem((), f"{line}; {advice}") for line in [*lines, *versions][:SHOWN])
    if versions:
        raise MachineError(f"{'; '.join(versions)}; install what {lock_file(recipe)} names, or {advice}")


def _differences(locked: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({**locked, **now}):
        if locked.get(name) != now.get(name):
            was, is_now = locked.get(name, "not there"), now.get(name, "not there")
            what = "the recipe's sha256" if name == "sha256" else shorten(name, 60)
            yield f"{what} was {shorten(was, LONGEST)}, now {shorten(is_now, LONGEST)}"


def _read(recipe: Recipe) -> Any:
    file = lock_file(recipe)
    advice = f"run: loracook lock {recipe.file}"
    if not file.is_file():
        raise LoracookError(f"{quote(file)} is no file; {advice}")
    content = read(file).data
    try:
        check_shape(content, SHAPE)
    except ValueError as error:
        raise LoracookError(f"{quote(file)} is not a lock; {advice}") from error
    if content["lock"] != FORMAT:
        raise LoracookError(f"{quote(file)} is a lock of another version of loracook; {advice}")
    return content
