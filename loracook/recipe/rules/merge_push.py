"""Rules of what is made of a trained adapter."""

from __future__ import annotations

from collections.abc import Iterator

from loracook.errors import Problem
from loracook.recipe.derived import Data

OF_THE_HUB = ("revision", "commit_message", "create_pr")


def push_without_place(data: Data) -> Iterator[Problem]:
    """A push requires a destination."""
    push = data.get("push")
    if push is not None and "repo_id" not in push and "folder" not in push:
        yield Problem(("push",), "no destination; set 'repo_id: organization/name' or 'folder: name'")


def push_to_two_places(data: Data) -> Iterator[Problem]:
    """A push has one destination."""
    if {"repo_id", "folder"} <= data.get("push", {}).keys():
        yield Problem(("push", "folder"), "conflicts with 'repo_id'; remove one of the two")


def push_of_no_merge(data: Data) -> Iterator[Problem]:
    """Only a merged model can be pushed as one model."""
    if data.get("push", {}).get("what") == "merged" and "merge" not in data:
        yield Problem(("push", "what"), "requires a merged model; add 'merge: {}', or set 'adapter'")


def hub_keys_for_a_folder(data: Data) -> Iterator[Problem]:
    """A folder has no branches and no commits."""
    push = data.get("push", {})
    for name in OF_THE_HUB:
        if name in push and "folder" in push and "repo_id" not in push:
            yield Problem(("push", name), "has no effect on a folder; remove it, or push to a 'repo_id'")
