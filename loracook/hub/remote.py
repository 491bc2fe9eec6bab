"""One try at a push: look at what the hub holds, and commit what it lacks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError, MachineError
from loracook.hub import Target
from loracook.store.files import write_atomic
from loracook.store.release import allowed

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo, RepoFile

NEW = {".gitattributes"}
"""What the hub itself puts into a new repository."""

Paths = Mapping[str, str]
Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class State:
    """A revision as it is now: its commit, its files by their path, and where it can be looked at."""

    oid: str
    files: Mapping[str, RepoFile]
    url: str


def check(api: HfApi, target: Target) -> None:
    """Return when the token may write to the target and nothing there is in the way.

    Raises:
        MachineError: this token may not.
        LoracookError: the user has to say so first.
    """
    who = api.whoami()
    found = _repository(api, target)
    if found is None:
        _check_may_create(who, target.repo_id)
        return
    _check_visibility(found, target)
    if not target.create_pr:
        api.auth_check(target.repo_id, write=True)
        _check_room(_state(api, target.repo_id, target.revision), target)


def upload(api: HfApi, target: Target, paths: Paths, facts: Facts, *, journal: Path) -> dict[str, str]:
    """The commit with exactly these files: the one that is there, else a new one.

    An earlier try may have made it without our hearing of it, so each try looks first. A new one names the
    commit it was decided on as its parent, and the hub takes it on top of that one alone.
    """
    made = _made(api, target, journal)
    state = _state(api, target.repo_id, target.revision)
    found = _published(api, target, state, paths, facts)
    if found is None:
        if state.oid != made:
            _check_room(state, target)
        _commit(api, target, paths, state)
        state = _state(api, target.repo_id, target.revision)
        found = _published(api, target, state, paths, facts)
    if found is None:
        raise MachineError(f"'{target.repo_id}' did not take every file; is there a .gitignore in it?")
    commit = {"oid": found.oid, "url": found.url}
    _keep(journal, commit=commit)
    return commit


def _repository(api: HfApi, target: Target) -> ModelInfo | None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(target.repo_id)
    except RepositoryNotFoundError:
        return None


def _made(api: HfApi, target: Target, journal: Path) -> str | None:
    """Make the repository and the branch where they are missing; the first commit of one that we made."""
    found = _repository(api, target)
    if found is None:
        api.create_repo(target.repo_id, private=target.private, exist_ok=True)
        found = api.model_info(target.repo_id)
        _keep(journal, made=found.sha)
    _check_visibility(found, target)
    if target.revision:
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
    kept: dict[str, str] = json.loads(journal.read_text("utf-8"))
    return kept.get("made")


def _state(api: HfApi, repo_id: str, revision: str | None) -> State:
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        oid = api.model_info(repo_id, revision=revision).sha
    except RevisionNotFoundError:  # a branch to be starts as main
        oid = api.model_info(repo_id).sha
    tree = api.list_repo_tree(repo_id, recursive=True, revision=oid)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return State(oid, files, f"{api.endpoint}/{repo_id}/commit/{oid}")


def _published(api: HfApi, target: Target, state: State, paths: Paths, facts: Facts) -> State | None:
    for place in _pull_requests(api, target) if target.create_pr else (state,):
        if not _stale(place, paths) and all(
            _same(place.files.get(name), Path(path), facts[name]) for name, path in paths.items()
        ):
            return place
    return None


def _pull_requests(api: HfApi, target: Target) -> Iterator[State]:
    for pull in api.get_repo_discussions(target.repo_id, discussion_type="pull_request"):
        if pull.title == target.commit_message and pull.status != "closed":
            yield replace(_state(api, target.repo_id, f"refs/pr/{pull.num}"), url=pull.url)


def _same(remote: RepoFile | None, path: Path, fact: Mapping[str, Any]) -> bool:
    if remote is None or remote.size != fact["bytes"]:
        return False
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == fact["sha256"])
    content = path.read_bytes()
    return bool(remote.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


def _stale(state: State, paths: Paths) -> list[str]:
    """Files of an earlier push, which would be loaded together with the new ones."""
    return [name for name in state.files if allowed(name) and name not in paths]


def _commit(api: HfApi, target: Target, paths: Paths, state: State) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_commit(
        target.repo_id,
        [CommitOperationDelete(name) for name in _stale(state, paths)]
        + [CommitOperationAdd(name, path) for name, path in paths.items()],
        commit_message=target.commit_message,
        revision=target.revision,
        create_pr=target.create_pr,
        parent_commit=state.oid,
    )


def _check_may_create(who: Mapping[str, Any], repo_id: str) -> None:
    owner = repo_id.partition("/")[0]
    writable = [org["name"] for org in who.get("orgs", []) if org.get("roleInOrg") != "read"]
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise MachineError(f"the token of '{who['name']}' may only read; log in with one that may write")
    if owner not in (who["name"], *writable):
        raise MachineError(
            f"'{who['name']}' may not make a repository of '{owner}'; write push.repo_id: {who['name']}/…"
        )


def _check_visibility(found: ModelInfo, target: Target) -> None:
    if target.private and found.private is False:
        raise LoracookError(
            f"'{target.repo_id}' is public and the recipe says private; write push.private: false, "
            "or make it private on the hub"
        )


def _check_room(state: State, target: Target) -> None:
    there = sorted(set(state.files) - NEW)
    if there and not (target.overwrite or target.create_pr):
        raise LoracookError(
            f"'{target.repo_id}' already holds '{there[0]}'; add --overwrite to replace what is there"
        )


def _keep(journal: Path, **facts: Any) -> None:
    kept: dict[str, Any] = json.loads(journal.read_text("utf-8"))
    write_atomic(journal, json.dumps(kept | facts, indent=2) + "\n")
