"""Push: the adapter or the merged model, with a model card, to the hub or to a local folder."""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from loracook import data, model
from loracook.errors import LoracookError, MachineError, PushError
from loracook.hub import push_process
from loracook.machine.faults import CLOSE_PROGRAMS
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.report.card import model_card, usage_prompt
from loracook.report.task_scores import stage_scores
from loracook.stages.base import Consent, Folders
from loracook.store.files import mismatch, read_sealed, sync, write_atomic, write_sealed
from loracook.store.read_back import NUMBER
from loracook.store.record import read_metrics, read_record, read_result
from loracook.store.release import CARD, ReleaseFiles, release_files
from loracook.units import size

READS: tuple[str, ...] = ("name", "description", "push")
RESUMES = False
OUT_OF_MEMORY = CLOSE_PROGRAMS
SOURCES = {"adapter": ("train", "adapter"), "merged": ("merge", "model")}
"""The stage, and the folder in it, that is pushed."""
MERGED = {
    "base": str, "prompts": int, "logits_difference": NUMBER, "logits_difference_from_trained": NUMBER | None,
}  # fmt: skip
"""What the card says of a merge."""


def after(recipe: Recipe) -> tuple[str, ...]:
    """The stages that made what is pushed, and those whose metrics are on the card."""
    merge = ("merge",) if recipe["push"]["what"] == "merged" else ()
    return ("train", *merge, *(name for name in ("evaluate", "lm_eval") if name in recipe))


def files(recipe: Recipe) -> tuple[Path, ...]:
    """No local files beyond the results of earlier stages."""
    return ()


def describe(recipe: Recipe) -> str:
    """What is uploaded where, and whether it will be public."""
    push = recipe["push"]
    what = "adapter" if push["what"] == "adapter" else "merged model"
    if uploads_to(recipe) is None:
        return f"{what} to {push['folder']}/"
    branch = f", branch {push['revision']}" if "revision" in push else ""
    pull = ", as a pull request" if push.get("create_pr") else ""
    visibility = "private" if push["private"] else "public"
    return f"{what} to the hub as {push['repo_id']} ({visibility}{branch}{pull})"


def uploads_to(recipe: Recipe) -> str | None:
    """The repository on the hub, None for a local folder."""
    repo_id: str | None = recipe["push"].get("repo_id")
    return repo_id


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Return when the push is possible now.

    Raises:
        LoracookError: --push or --overwrite is missing.
        MachineError: the hub cannot be reached, or the token has no write access.
    """
    if uploads_to(recipe):
        push_process.check(_target(recipe, consent))


def accept(recipe: Recipe, folder: Path) -> None:
    """Nothing is required of it."""


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Write the card and upload it with the files; the result states the size and hash of each.

    Raises:
        PushError: the upload failed; the same call resumes it.
    """
    stage, folder = SOURCES[recipe["push"]["what"]]
    folders.own.mkdir(parents=True, exist_ok=True)
    write_atomic(folders.own / CARD, _card(recipe, folders, folders.before[stage] / folder))
    release = release_files(folders.before[stage], folder, folders.own / CARD)
    if uploads_to(recipe):
        place = _upload(_target(recipe, consent), release, folders=folders, progress=progress)
    else:
        place = _publish(release, folders.run / recipe["push"]["folder"])
    return place | {"files": dict(release.facts), "serving": _serving(folders.before[stage])}


def _serving(made: Path) -> list[Any]:
    """What loads the files, as the stage that made them found; one of before did not look."""
    stated: list[Any] = read_result(made, {}).get("serving", [])
    return stated


def _target(recipe: Recipe, consent: Consent) -> push_process.Target:
    """The repository on the hub; raises LoracookError when the user did not allow the upload."""
    push = {"commit_message": f"Push {recipe.name}", **recipe["push"]}
    if not consent.push:
        raise LoracookError(f"uploading to '{push['repo_id']}' requires --push")
    del push["what"]
    return push_process.Target(**push, overwrite=consent.overwrite)


def _card(recipe: Recipe, folders: Folders, home: Path) -> str:
    push = recipe["push"]
    name = push["repo_id"] if uploads_to(recipe) else f"./{push['folder']}"
    metrics = read_metrics(folders.before["evaluate"]) if "evaluate" in folders.before else {}
    tasks = stage_scores(folders.before["lm_eval"]) if "lm_eval" in folders.before else []
    versions = read_record(folders.before["train"])["versions"]
    files = [path.name for path in home.iterdir()]
    merge = read_result(folders.before["merge"], MERGED) if "merge" in folders.before else None
    exact = data.exact_text(recipe, model.saved_tokenizer(recipe, home), usage_prompt(recipe))
    return model_card(
        recipe,
        name=name,
        files=files,
        metrics=metrics,
        versions=versions,
        tasks=tasks,
        merge=merge,
        exact=exact,
    )


def _upload(
    target: push_process.Target, release: ReleaseFiles, *, folders: Folders, progress: Progress
) -> dict[str, Any]:
    progress.note(f"uploading {len(release.facts)} files ({size(release.bytes)}) to '{target.repo_id}'")
    try:
        commit = push_process.upload(target, release, note=progress.note)
    except LoracookError as error:
        raise PushError(
            f"{str(error).rstrip('.')}; the local result in '{folders.run}' is complete, "
            "run the same command again to retry the push alone"
        ) from error
    return {"repo_id": target.repo_id, "commit": commit["oid"], "url": commit["url"]}


def _publish(release: ReleaseFiles, place: Path) -> dict[str, Any]:
    """Build the folder aside, then swap it in; files that no push put there are never removed."""
    part, old = place.with_name(f"{place.name}.part"), place.with_name(f"{place.name}.old")
    note = place.with_name(f".{place.name}.json")
    published = _published(note)
    for folder in (place, part, old):
        _check_ours(folder, published)
    write_sealed(note, {"files": sorted(published | set(release.facts))})
    _remove(part)
    part.mkdir(parents=True)
    for name, source in release.paths.items():
        shutil.copyfile(source, part / name)
        sync(part / name)
    sync(part)
    if problem := mismatch(part, release.facts):
        raise MachineError(f"copying to '{part}' failed: {problem}; check the disk for errors")
    if place.exists():
        _remove(old)
        place.rename(old)
    part.rename(place)
    sync(place.parent)
    _remove(old)
    elsewhere = {f"../{place.name}/{name}": fact for name, fact in release.facts.items()}
    return {"folder": place.name, "elsewhere": elsewhere}


def _published(note: Path) -> set[str]:
    """The names of the files that pushes have put into a folder, which they note beside it before."""
    try:
        return set(read_sealed(note, {"files": [str]})["files"])
    except (OSError, ValueError):
        return set()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _check_ours(folder: Path, published: Collection[str]) -> None:
    """Raise LoracookError unless a folder holds nothing but what a push put there, or began to."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise LoracookError(f"'{folder}' exists and is not a folder; remove it, or set another push.folder")
    foreign = (path for path in folder.rglob("*") if str(path.relative_to(folder)) not in published)
    for path in foreign:
        raise LoracookError(f"'{path}' was not created by a push; move it, or set another push.folder")
