"""One attempt at a push: compare the repository with the release, and commit what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError, MachineError
from loracook.hub.push_process import Target
from loracook.store.release import ReleaseFiles, allowed

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo, RepoFile

INITIAL = {".gitattributes"}
"""Files that the hub itself puts into a new repository."""


@dataclass(frozen=True)
class State:
    """A revision of a repository: its commit, its files by path, and its page."""

    oid: str
    files: Mapping[str, RepoFile]
    url: str


def check(api: HfApi, target: Target) -> None:
    """Return when the token may write to the repository and nothing there would be overwritten.

    Raises:
        MachineError: the token has no write access.
        LoracookError: the repository is public while the recipe says private, or already has files.
    """
    repository = _writable(api, target)
    if repository and not target.create_pr:
        _check_empty(_state(api, target.repo_id, target.revision), target)


def upload(api: HfApi, target: Target, release: ReleaseFiles) -> dict[str, str]:
    """The commit with exactly these files: the existing one, else a new one.

    An earlier attempt may have committed although its answer was lost, so each attempt looks first. A new
    commit names the one it was compared with as its parent, and the hub accepts it only on top of that one.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    _ensure_repository(api, target)
    state = _state(api, target.repo_id, target.revision)
    published = _published(api, target, state=state, release=release)
    if published is None:
        _check_empty(state, target, release)
        api.create_commit(
            target.repo_id,
            [CommitOperationDelete(name) for name in _stale(state, release)]
            + [CommitOperationAdd(name, path) for name, path in release.paths.items()],
            commit_message=target.commit_message,
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=state.oid,
        )
        committed = _state(api, target.repo_id, target.revision)
        published = _published(api, target, state=committed, release=release)
    if published is None:
        raise MachineError(f"'{target.repo_id}' lacks files after the commit; check it for a .gitignore")
    return {"oid": published.oid, "url": published.url}


def _writable(api: HfApi, target: Target) -> ModelInfo | None:
    """The repository, None for one that the token may create; raises what `check` does."""
    account, repository = api.whoami(), _repository(api, target)
    if repository is None:
        _check_may_create(account, target.repo_id)
        return None
    _check_visibility(repository, target)
    if not target.create_pr:
        api.auth_check(target.repo_id, write=True)
    return repository


def _repository(api: HfApi, target: Target) -> ModelInfo | None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        repository = api.model_info(target.repo_id)
    except RepositoryNotFoundError:
        return None
    if repository.sha is None or repository.private is None:
        raise MachineError(f"the hub does not say which commit '{target.repo_id}' is at, or who can see it")
    return repository


def _ensure_repository(api: HfApi, target: Target) -> None:
    """Create the repository and the branch if missing."""
    if _writable(api, target) is None:
        api.create_repo(target.repo_id, private=target.private, exist_ok=True)
        if made := _repository(api, target):
            _check_visibility(made, target)
    if target.revision:
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)


def _state(api: HfApi, repo_id: str, revision: str | None) -> State:
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        info = api.model_info(repo_id, revision=revision)
    except RevisionNotFoundError:  # a new branch starts as main
        info = api.model_info(repo_id)
    oid = info.sha
    tree = api.list_repo_tree(repo_id, recursive=True, revision=oid)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    if info.siblings and not files:  # what is taken for empty may be overwritten
        raise MachineError(f"the hub does not list the files of '{repo_id}'; run the same command again")
    return State(oid, files, f"{api.endpoint}/{repo_id}/commit/{oid}")


def _published(api: HfApi, target: Target, *, state: State, release: ReleaseFiles) -> State | None:
    """The revision that already holds exactly the release: this one, or that of an open pull request."""
    for candidate in _pull_requests(api, target) if target.create_pr else (state,):
        if not _stale(candidate, release) and all(
            _same(candidate.files.get(name), path, release.facts[name])
            for name, path in release.paths.items()
        ):
            return candidate
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


def _stale(state: State, release: ReleaseFiles) -> list[str]:
    """Files of an earlier push, which would be loaded together with the new ones."""
    return [name for name in state.files if allowed(name) and name not in release.paths]


def _check_may_create(account: Mapping[str, Any], repo_id: str) -> None:
    user, owner = account["name"], repo_id.partition("/")[0]
    writable = [org["name"] for org in account.get("orgs", []) if org.get("roleInOrg") != "read"]
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise MachineError(f"the token of '{user}' is read-only; log in with a write token: hf auth login")
    if owner not in (user, *writable):
        raise MachineError(
            f"'{user}' cannot create repositories under '{owner}'; set push.repo_id: {user}/… or log in "
            "with another account"
        )


def _check_visibility(repository: ModelInfo, target: Target) -> None:
    if target.private and repository.private is False:
        raise LoracookError(
            f"'{target.repo_id}' is public, but the recipe says private; set push.private: false, "
            "or make the repository private on the hub"
        )


def _check_empty(state: State, target: Target, release: ReleaseFiles | None = None) -> None:
    """Raise LoracookError for files that are neither the hub's nor, since a commit was cut short, ours."""
    ours = {
        name
        for name, path in (release.paths.items() if release else ())
        if release and _same(state.files.get(name), path, release.facts[name])
    }
    existing = sorted(set(state.files) - INITIAL - ours)
    if existing and not (target.overwrite or target.create_pr):
        raise LoracookError(
            f"'{target.repo_id}' already contains '{existing[0]}'; add --overwrite to replace its files"
        )
