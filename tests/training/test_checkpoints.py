"""What is taken for a checkpoint, and what is deleted: exactly what a run sealed, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loracook.store.files import MANIFEST, manifest, seal, sha256, write_sealed
from loracook.training import checkpoints
from loracook.training.checkpoints import STATE, UNFINISHED, newest_first, newest_sealed, rotate
from tests.store.test_run_folder import contents

MADE = {"seed": 42, "base": None}


def write(folder: Path, step: int, **state: Any) -> Path:
    """A checkpoint as training leaves it."""
    written = checkpoints.staging_folder(folder) / f"checkpoint-{step}"
    written.mkdir(parents=True)
    (written / "optimizer.pt").write_text("abc")
    whole = {"global_step": step, "max_steps": 9, "best_model_checkpoint": None} | state
    (written / STATE).write_text(json.dumps(whole))
    checkpoints.seal(written, MADE, tokens=10)
    return checkpoints.final(written)


def write_anew(file: Path, content: str) -> None:
    """Change a file of a checkpoint, and seal the checkpoint again as anybody can."""
    file.write_text(content)
    facts = {name: {"bytes": (file.parent / name).stat().st_size, "sha256": sha256(file.parent / name)}
             for name in manifest(file.parent)["files"]}  # fmt: skip
    seal_anew(file.parent, files=facts)


def seal_anew(folder: Path, **facts: Any) -> None:
    write_sealed(folder / MANIFEST, manifest(folder) | facts)


def named(folder: Path, name: str) -> None:
    """Let the manifest name another file, one that is there."""
    fact = {"bytes": 3, "sha256": sha256(folder / "optimizer.pt")}
    seal_anew(folder, files={**manifest(folder)["files"], name: fact})


DEEP = '{"global_step": 8, "max_steps": 9, "best_model_checkpoint": ' + "[" * 5000 + "]" * 5000 + "}"
HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "another step": (lambda it: write_anew(it / STATE, state(9)), f"{STATE} is of another checkpoint"),
    "a step that is text": (lambda it: write_anew(it / STATE, state("8")), f"{STATE} is corrupt"),
    "a step of many digits": (lambda it: write_anew(it / STATE, '{"global_step": 8%s}' % ("0" * 5000)), f"{STATE} is corrupt"),
    "a best one elsewhere": (lambda it: write_anew(it / STATE, state(8, "../../etc")), f"{STATE} is of another checkpoint"),
    "a best one that is a list": (lambda it: write_anew(it / STATE, state(8, [])), f"{STATE} is corrupt"),
    "deep JSON": (lambda it: write_anew(it / STATE, DEEP), f"{STATE} is corrupt"),
    "no JSON": (lambda it: write_anew(it / STATE, "\udcff".encode("utf-8", "surrogatepass").decode("latin-1")), f"{STATE} is corrupt"),
    "JSON that is a list": (lambda it: write_anew(it / STATE, "[]"), f"{STATE} is corrupt"),
    "a file more": (lambda it: (it / "model.safetensors").write_text(""), "model.safetensors is not part of it"),
    "a folder more": (lambda it: (it / "pytorch_model_fsdp_0").mkdir(), "pytorch_model_fsdp_0 is not part of it"),
    "a link": (lambda it: (it / "link").symlink_to("optimizer.pt"), "link is not part of it"),
    "another's checkpoint": (lambda it: copied(it, it.with_name("checkpoint-4")), f"{STATE} is of another checkpoint"),
    "a path that climbs": (lambda it: named(it, "../checkpoint-4/optimizer.pt"), f"{MANIFEST} is corrupt"),
    "a path from the root": (lambda it: named(it, str(it / "optimizer.pt")), f"{MANIFEST} is corrupt"),
    "a path spelled otherwise": (lambda it: named(it, "./optimizer.pt"), f"{MANIFEST} is corrupt"),
    "files as a list": (lambda it: seal_anew(it, files=[]), f"{MANIFEST} is corrupt"),
    "sizes as text": (lambda it: seal_anew(it, files={STATE: {"bytes": "3", "sha256": ""}}), f"{MANIFEST} is corrupt"),
    "tokens as text": (lambda it: seal_anew(it, tokens="many"), f"{MANIFEST} is corrupt"),
    "a deep maker": (lambda it: seal_anew(it, made={"seed": [[]]}), f"{MANIFEST} is corrupt"),
    "a deep manifest": (lambda it: (it / MANIFEST).write_text(DEEP), f"{MANIFEST} is corrupt"),
    "a folder for a manifest": (lambda it: ((it / MANIFEST).unlink(), (it / MANIFEST).mkdir()), f"{MANIFEST} is missing"),
    "a file for a checkpoint": (lambda it: (shutil.rmtree(it), it.write_text("soup")), f"{MANIFEST} is missing"),
}  # fmt: skip


def state(step: object, best: object = None) -> str:
    return json.dumps({"global_step": step, "max_steps": 9, "best_model_checkpoint": best})


def copied(place: Path, other: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(other, place)


@pytest.mark.parametrize("kind", HARM)
def test_a_checkpoint_that_is_not_what_it_says_is_moved_aside_and_the_one_before_is_taken(
    kind: str, tmp_path: Path
) -> None:
    before, newest = write(tmp_path, 4), write(tmp_path, 8)
    harm, fault = HARM[kind]
    harm(newest)
    kept = {path.relative_to(newest): content for path, content in contents(newest).items()}
    aside = "skipped-1-checkpoint-8"
    assert newest_sealed(tmp_path) == (before, [f"skipping checkpoint-8: {fault}; it is now {aside}"])
    assert {
        path.relative_to(tmp_path / aside): each for path, each in contents(tmp_path / aside).items()
    } == kept
    assert newest_sealed(tmp_path) == (before, [])


@pytest.mark.parametrize("name", ["²", "١٢", "08", "-8", "8.old", "8\n", "1e3", "9" * 5000, "8 ", "0"])
def test_a_name_that_no_run_gives_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    try:
        (tmp_path / f"checkpoint-{name}").mkdir()
    except OSError:  # longer than names may be
        return
    assert newest_first(tmp_path) == []
    assert newest_sealed(tmp_path) == (None, [])
    assert (tmp_path / f"checkpoint-{name}").exists()


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(1, None, [12]), (2, None, [8, 12]), (1, 4, [4, 12]), (9, None, [2, 4, 8, 12])],
)
def test_the_oldest_checkpoints_beyond_the_limit_are_deleted(
    limit: int, best: int | None, left: list[int], tmp_path: Path
) -> None:
    for step in (12, 8, 4, 2):
        write(tmp_path, step)
    rotate(tmp_path, limit, tmp_path / f"checkpoint-{best}" if best else None)
    assert sorted(tmp_path.glob("checkpoint-*")) == sorted(tmp_path / f"checkpoint-{step}" for step in left)
    assert list((tmp_path / UNFINISHED).iterdir()) == []


def test_nothing_but_sealed_checkpoints_is_deleted(tmp_path: Path) -> None:
    write(tmp_path, 8)
    for name in (
        "checkpoint-1",
        "checkpoint-²",
        "checkpoint-04",
        "checkpoint-best",
        "skipped-1-checkpoint-6",
        "notes",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "soup.txt").write_text("dear to somebody")
    (tmp_path / "checkpoint-2").mkdir()
    seal(tmp_path / "checkpoint-2")  # sealed, but as no training does
    before = contents(tmp_path)
    rotate(tmp_path, 1, None)
    assert contents(tmp_path) == before
