"""Push: the adapter or the merged model, with a model card, to the hub or into a local folder."""

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
from loracook.store.files import broken_file, sync, write_whole
from loracook.store.record import read_record
from loracook.store.release import Parcel, allowed, pack, write_card

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

READS: tuple[str, ...] = ("name", "description", "push")
RESUMES = True
OUT_OF_MEMORY = "stop other programs and run the same command again"
SOURCES = {"adapter": ("train", "adapter"), "merged": ("merge", "model")}
"""Which folder of which stage is pushed."""
JOURNAL = "journal.json"


def after(recipe: Recipe) -> tuple[str, ...]:
    """Push needs what is pushed, what the card says of its training, and the metrics on the card."""
    merge = ("merge",) if recipe["push"]["what"] == "merged" else ()
    return ("train", *merge, *(("evaluate",) if "evaluate" in recipe else ()))


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Nothing local beyond what the stages before it left."""
    return ()


def describe(recipe: Recipe) -> str:
    """Say what goes where, and who will see it."""
    push = recipe["push"]
    what = "adapter" if push["what"] == "adapter" else "merged model"
    if uploads_to(recipe) is None:
        return f"{what} to {push['folder']}/"
    branch = f", branch {push['revision']}" if "revision" in push else ""
    pull = ", as a pull request" if push.get("create_pr") else ""
    return (
        f"{what} to the hub as {push['repo_id']} ({'private' if push['private'] else 'public'}{branch}{pull})"
    )


def uploads_to(recipe: Recipe) -> str | None:
    """The repository on the hub, None for a local folder."""
    repo_id: str | None = recipe["push"].get("repo_id")
    return repo_id


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Return when the push could be carried out now.

    Raises:
        LoracookError: the user has to allow something first.
        MachineError: the hub cannot be reached, or the right to write is missing.
    """
    if uploads_to(recipe):
        hub.check(_target(recipe, consent))


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Write the card and publish it with the files; the result states each with its size and hash.

    Raises:
        PushError: the hub did not accept it; the same call resumes.
    """
    stage, folder = SOURCES[recipe["push"]["what"]]
    card = write_card(_card(recipe, folders, folders.before[stage] / folder), folders.own)
    parcel = pack(folders.before[stage], folder, card)
    if uploads_to(recipe):
        place = _upload(_target(recipe, consent), parcel, folders, progress=progress)
    else:
        place = _publish(parcel, folders.run / recipe["push"]["folder"])
    return place | {"files": dict(parcel.facts)}


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
    name = push["repo_id"] if uploads_to(recipe) else f"./{push['folder']}"
    measured = folders.before["evaluate"] / "metrics.json" if "evaluate" in folders.before else None
    metrics = json.loads(measured.read_text("utf-8")) if measured and measured.exists() else {}
    versions = read_record(folders.before["train"])["versions"]
    files = [path.name for path in home.iterdir()]
    return model_card(recipe, name=name, files=files, metrics=metrics, versions=versions)


def _upload(target: hub.Target, parcel: Parcel, folders: Folders, *, progress: Progress) -> dict[str, Any]:
    path = folders.own / JOURNAL
    commit = _journal(path, parcel.facts).get("commit")
    if commit is None:
        progress.note(
            f"uploading {len(parcel.facts)} files, {parcel.bytes / 1e6:.1f} MB, to '{target.repo_id}'"
        )
        try:
            commit = hub.upload(target, parcel, path, note=progress.note)
        except LoracookError as error:
            raise PushError(
                f"{str(error).rstrip('.')}; the result is complete in '{folders.run}', "
                "and running the same command again retries the push alone"
            ) from error
    return {"repo_id": target.repo_id, "commit": commit["oid"], "url": commit["url"]}


def _journal(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The journal of a push of these files; a corrupt one, or that of other files, is started over."""
    try:
        journal = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        journal = {}
    if journal.get("files") != facts:
        journal = {"files": dict(facts)}
        write_whole(path, json.dumps(journal, indent=2) + "\n")
    return dict(journal)


def _publish(parcel: Parcel, place: Path) -> dict[str, Any]:
    """Build the folder aside and swap it in; files that loracook did not publish there are never removed."""
    part, old = place.with_name(f"{place.name}.part"), place.with_name(f"{place.name}.old")
    for folder in (place, part, old):
        _check_ours(folder)
    _remove(part)
    _copy(parcel, part)
    if place.exists():
        _remove(old)
        place.rename(old)
    part.rename(place)
    sync(place.parent)
    _remove(old)
    published = {f"../{place.name}/{name}": fact for name, fact in parcel.facts.items()}
    return {"folder": place.name, "elsewhere": published}


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _check_ours(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise LoracookError(f"'{folder}' is in the way; remove it, or write another push.folder")
    foreign = next((path for path in folder.rglob("*") if not allowed(path.name)), None)
    if foreign is not None:
        raise LoracookError(
            f"'{foreign}' was not published by loracook; move it, or write another push.folder"
        )


def _copy(parcel: Parcel, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, source in parcel.paths.items():
        shutil.copyfile(source, folder / name)
        sync(folder / name)
    sync(folder)
    if broken := broken_file(folder, parcel.facts):
        raise MachineError(f"'{folder / broken}' is corrupt right after writing; check the disk")
