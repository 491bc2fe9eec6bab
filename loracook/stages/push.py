"""Push: the adapter or the merged model, with a model card, to the hub or into a folder of this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import hub
from loracook.errors import LoracookError, MachineError, PushError
from loracook.progress import Progress
from loracook.report.card import model_card
from loracook.stages.base import Consent, Folders
from loracook.store.files import mismatch, sync, write_atomic
from loracook.store.record import read_record
from loracook.store.release import ReleaseFiles, allowed, release_files, write_card

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

READS: tuple[str, ...] = ("name", "description", "push")
SOURCES = {"adapter": ("train", "adapter"), "merged": ("merge", "model")}
"""Which folder of which stage is pushed."""
JOURNAL = "journal.json"


def after(recipe: Recipe) -> tuple[str, ...]:
    """What is pushed, what the card says of its training, and the numbers on the card."""
    merge = ("merge",) if recipe["push"]["what"] == "merged" else ()
    return ("train", *merge, *(("evaluate",) if "evaluate" in recipe else ()))


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Nothing local beyond what the stages before it left."""
    return ()


def describe(recipe: Recipe) -> str:
    """Say what goes where, and who will see it."""
    push = recipe["push"]
    what = "adapter" if push["what"] == "adapter" else "merged model"
    if not needs_consent(recipe):
        return f"{what} to {push['folder']}/"
    branch = f", branch {push['revision']}" if "revision" in push else ""
    pull = ", as a pull request" if push.get("create_pr") else ""
    return (
        f"{what} to the hub as {push['repo_id']} ({'private' if push['private'] else 'public'}{branch}{pull})"
    )


def needs_consent(recipe: Recipe) -> bool:
    """Whether something would leave the machine."""
    return "repo_id" in recipe["push"]


def before_training(recipe: Recipe, consent: Consent) -> None:
    """Return when the push could be carried out now.

    Raises:
        LoracookError: the user has to allow something first.
        MachineError: the hub or the right to write is missing.
    """
    if needs_consent(recipe):
        check_consent(recipe, consent)
        hub.check(_target(recipe, consent))


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Write the card and bring it out with the files; the result states each with its size and hash.

    Raises:
        PushError: the hub did not take it; the same call goes on from there.
    """
    stage, folder = SOURCES[recipe["push"]["what"]]
    card = write_card(_card(recipe, folders, folders.before[stage] / folder), folders.own)
    release = release_files(folders.before[stage], folder, card)
    if needs_consent(recipe):
        check_consent(recipe, consent)
        place = _upload(_target(recipe, consent), release, folders, progress)
    else:
        place = _publish(release, folders.run / recipe["push"]["folder"])
    return place | {"files": dict(release.facts)}


def check_consent(recipe: Recipe, consent: Consent) -> None:
    """Raise LoracookError when the user did not allow the upload."""
    if not consent.push:
        repo_id = recipe["push"]["repo_id"]
        raise LoracookError(f"'{repo_id}' is pushed to with your word only; add --push")


def _target(recipe: Recipe, consent: Consent) -> hub.Target:
    push = recipe["push"]
    return hub.Target(
        repo_id=push["repo_id"],
        private=push["private"],
        commit_message=push.get("commit_message", f"Push {recipe.name}"),
        revision=push.get("revision"),
        create_pr=push.get("create_pr", False),
        overwrite=consent.overwrite,
    )


def _card(recipe: Recipe, folders: Folders, home: Path) -> str:
    push = recipe["push"]
    name = push["repo_id"] if needs_consent(recipe) else f"./{push['folder']}"
    measured = folders.before["evaluate"] / "metrics.json" if "evaluate" in folders.before else None
    metrics = json.loads(measured.read_text("utf-8")) if measured and measured.exists() else {}
    versions = read_record(folders.before["train"])["versions"]
    files = [path.name for path in home.iterdir()]
    return model_card(recipe, name=name, files=files, metrics=metrics, versions=versions)


def _upload(
    target: hub.Target, release: ReleaseFiles, folders: Folders, progress: Progress
) -> dict[str, Any]:
    journal = folders.own / JOURNAL
    commit = _begun(journal, release.facts).get("commit")
    if commit is None:
        progress.note(f"{len(release.facts)} files, {release.bytes / 1e6:.1f} MB, to '{target.repo_id}'")
        try:
            commit = hub.upload(target, release, journal, note=progress.note)
        except LoracookError as error:
            raise PushError(
                f"{str(error).rstrip('.')}; nothing is lost: the result is complete in '{folders.run}', "
                "and the same command again repeats the push alone"
            ) from error
    return {"repo_id": target.repo_id, "commit": commit["oid"], "url": commit["url"]}


def _begun(journal: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a push of these files has done so far; a damaged journal, or another push's, is begun anew."""
    try:
        kept = json.loads(journal.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        kept = {}
    if kept.get("files") != facts:
        kept = {"files": dict(facts)}
        write_atomic(journal, json.dumps(kept, indent=2) + "\n")
    return dict(kept)


def _publish(release: ReleaseFiles, place: Path) -> dict[str, Any]:
    """Build the folder aside and swap it in; what somebody else put there is never removed."""
    part, old = place.with_name(f"{place.name}.part"), place.with_name(f"{place.name}.old")
    for folder in (place, part, old):
        _check_ours(folder)
    _remove(part)
    _copy(release, part)
    if place.exists():
        _remove(old)
        place.rename(old)
    part.rename(place)
    sync(place.parent)
    _remove(old)
    published = {f"../{place.name}/{name}": fact for name, fact in release.facts.items()}
    return {"folder": place.name, "elsewhere": published}


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _check_ours(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise LoracookError(f"'{folder}' is in the way; remove it, or write another push.folder")
    foreign = next((path for path in folder.rglob("*") if not allowed(path.name)), None)
    if foreign is not None:
        raise LoracookError(f"'{foreign}' was not pushed there; move it, or write another push.folder")


def _copy(release: ReleaseFiles, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, source in release.paths.items():
        shutil.copyfile(source, folder / name)
        sync(folder / name)
    sync(folder)
    if problem := mismatch(folder, release.facts):
        raise MachineError(f"copying to '{folder}' failed: {problem}; check the disk for errors")
