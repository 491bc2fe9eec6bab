"""A recipe file and those that it extends, one parent each."""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from loracook.errors import EXTENDED, Problem, RecipeError, quote
from loracook.recipe.layers import Layer
from loracook.recipe.locations import forbidden_location
from loracook.recipe.source import Source, read

GENERATIONS = 8
KEY = ("extends",)


def lineage(file: str | FilePath) -> list[Layer]:
    """The layers of a recipe file and of its parents, the file first; raises RecipeError."""
    layers = [_layer(read(file), "")]
    seen: set[FilePath] = set()
    while (text := _extended(layers[-1].data)) is not None:
        child = layers[-1]
        seen.add(FilePath(child.file).resolve())
        parent = os.path.normpath(os.path.join(os.path.dirname(child.file), text))
        root = FilePath(file).parent.resolve()
        refusal = forbidden_location(text) or _refusal(FilePath(parent), root, seen)
        if refusal:
            raise RecipeError([_problem(child, f"{quote(text)} {refusal}")])
        layers.append(_layer(_parent(parent, child.file), child.file))
    return layers


def pulled_in(problem: Problem, by: str) -> Problem:
    """The problem of a parent, with the recipe that pulled the parent in; the file's own problems stay."""
    return replace(problem, message=f"{problem.message}{EXTENDED}{by})") if by else problem


def _extended(data: Any) -> str | None:
    text = data.get("extends") if isinstance(data, dict) else None
    return text if isinstance(text, str) and text else None


def _refusal(parent: FilePath, root: FilePath, seen: Set[FilePath]) -> str | None:
    try:
        found = parent.resolve()
    except (OSError, RuntimeError, ValueError):
        return "cannot be followed; name a recipe in this folder or below"
    if not found.is_relative_to(root):
        return "leads out of the recipe's folder; name a recipe in this folder or below"
    if found in seen:
        return "extends itself in the end; name another recipe or remove this line"
    if len(seen) > GENERATIONS:
        return f"is more than {GENERATIONS} recipes away; extend fewer"
    return None if os.path.isfile(found) else "is not there; name a recipe in this folder or below"


def _parent(file: str, by: str) -> Source:
    try:
        return read(file)
    except RecipeError as error:
        raise RecipeError(pulled_in(problem, by) for problem in error.problems) from error


def _problem(child: Layer, message: str) -> Problem:
    return pulled_in(Problem(KEY, message, "extends", position=child.positions[KEY].value), child.by)


def _layer(source: Source, by: str) -> Layer:
    return Layer("recipe", (), source.data, source.positions, by)
