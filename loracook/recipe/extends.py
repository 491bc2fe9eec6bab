"""A recipe file and its parents: `extends` names one parent, which may extend another."""

import os
from collections.abc import Set
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import EXTENDED, Problem, RecipeError, quote
from loracook.recipe.layers import Layer
from loracook.recipe.locations import forbidden_location
from loracook.recipe.reach import Reach
from loracook.recipe.source import Source, read

MAX_PARENTS = 8
KEY = ("extends",)


def lineage(file: str | FilePath, reach: Reach) -> list[Layer]:
    """The layers of a recipe file and its parents, the file first; raises RecipeError."""
    layers = [_layer(read(file), "")]
    seen: set[FilePath] = set()
    while (text := _extended(layers[-1].data)) is not None:
        child = layers[-1]
        seen.add(FilePath(child.file).resolve())
        here = replace(reach, folder=FilePath(child.file).parent)
        parent = os.path.normpath(here.folder / text)
        refusal = forbidden_location(text) or here.refusal(text) or _refusal(here.resolve(text), parent, seen)
        if refusal:
            raise RecipeError([_problem(child, f"{quote(text)} {refusal}")])
        layers.append(_layer(_parent(parent, child.file), child.file))
    return layers


def naming_child(problem: Problem, child: str) -> Problem:
    """The problem with the recipe that extends its file added to the message, if there is one."""
    return replace(problem, message=f"{problem.message}{EXTENDED}{child})") if child else problem


def _extended(data: Any) -> str | None:
    text = data.get("extends") if isinstance(data, dict) else None
    return text if isinstance(text, str) and text else None


def _refusal(target: FilePath, parent: str, seen: Set[FilePath]) -> str | None:
    if target != FilePath(parent).resolve():
        return "leads through a link and back; use the path without the link"
    if target in seen:
        return "makes a cycle; remove 'extends' from one of these recipes"
    if len(seen) > MAX_PARENTS:
        return f"is parent number {MAX_PARENTS + 1}; chain at most {MAX_PARENTS} parents"
    return (
        None if os.path.isfile(target) else "does not exist; use the path of a recipe, relative to this one"
    )


def _parent(file: str, child: str) -> Source:
    try:
        return read(file)
    except RecipeError as error:
        raise RecipeError(naming_child(problem, child) for problem in error.problems) from error


def _problem(child: Layer, message: str) -> Problem:
    return naming_child(
        Problem(KEY, message, "extends", position=child.positions[KEY].value), child.extended_by
    )


def _layer(source: Source, extended_by: str) -> Layer:
    return Layer("recipe", (), source.data, source.positions, extended_by)
