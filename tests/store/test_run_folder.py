"""A link anywhere in a run folder is refused before anything is read or written: nothing outside changes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import loracook
from loracook.cli.run import command
from loracook.errors import MachineError
from loracook.store.record import read_record
from loracook.store.run_folder import DEEPEST, check_run_folder
from loracook.store.runs import run_folders
from tests.plans import config_recipe
from tests.tiny_recipes import TWO_STEPS, twin_file

SECRET = "the chef's own sauce"
EVERYTHING: dict[str, Any] = {
    "train": TWO_STEPS | {"save_steps": 1, "save_total_limit": 1},
    "evaluate": {"prompts": ["Why?"], "generation": {"max_new_tokens": 4}},
    "merge": {},
    "push": {"folder": "published"},
}


def check(recipe: Path, runs: Path) -> str:
    """What planning says about a runs folder at once."""
    with pytest.raises(MachineError) as caught:
        check_run_folder(runs / "opt-350m-lora")
    return str(caught.value)


def run(recipe: Path, runs: Path) -> str:
    """What `loracook run` says, without a word of what is outside."""
    done = CliRunner().invoke(command, [str(recipe), "--runs", str(runs)])
    assert isinstance(done.exception, MachineError), done.output
    assert SECRET not in done.output + str(done.exception)
    return str(done.exception)


@pytest.fixture(scope="module")
def cooked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[Path], list[Path]]:
    """A recipe that ran through every stage, every path in its run folder that it used, and those it synced."""
    folder = tmp_path_factory.mktemp("cooked").resolve()
    recipe = twin_file("opt-350m-lora", folder, **EVERYTHING)
    with pytest.MonkeyPatch.context() as patch, used_paths(folder / "runs") as used:
        patch.chdir(folder)
        synced = noting_syncs(patch)
        for _ in range(2):
            done = CliRunner().invoke(command, [recipe.name])
            assert done.exit_code == 0, done.output
            next(folder.glob("runs/*/push-*/record.json")).unlink()  # to publish again
    run = folder / "runs" / "opt-350m-lora"
    used = {path for path in used if path.is_relative_to(run) and not path.name.startswith("tmp")}
    return recipe, {path.relative_to(folder / "runs") for path in used}, synced


def noting_syncs(patch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that are flushed to disk from now on, in order."""
    synced, fsync = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    patch.setattr(os, "fsync", note)
    return synced


@contextmanager
def used_paths(root: Path) -> Iterator[set[Path]]:
    """The paths at or below `root` that Python opens, lists, makes, moves or removes in the block.

    What native code writes is found when it is moved, and at the end.
    """
    used: set[Path] = set()

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if not listening or not event.startswith(("open", "os.", "shutil.")):
            return
        for argument in arguments:
            if isinstance(argument, str | bytes | Path):
                path = Path(os.path.abspath(os.fsdecode(argument)))
                if path.is_relative_to(root):
                    used.add(path)
                    if event in ("os.rename", "shutil.rmtree"):
                        listening.clear()
                        used.update(path.rglob("*"))
                        listening.append(True)

    listening = [True]
    sys.addaudithook(note)
    try:
        yield used
    finally:
        listening.clear()
        used.update(root.rglob("*"))


def outside(folder: Path) -> Path:
    """A folder that no run has to do with, with what a run reads and deletes in its own."""
    (folder / "checkpoint-1").mkdir(parents=True)
    for name in ("file", "checkpoint-1/manifest.json", "record.json", "adapter_config.json"):
        (folder / name).write_text(SECRET)
    return folder


def to_a_chain(link: Path, target: Path) -> None:
    (target / "link").symlink_to(target / "file")
    link.symlink_to(target / "link")


LINKS: dict[str, Callable[[Path, Path], object]] = {
    "to a file": lambda link, target: link.symlink_to(target / "file"),
    "to a folder": lambda link, target: link.symlink_to(target),
    "to nothing": lambda link, target: link.symlink_to(target / "new"),
    "relative": lambda link, target: link.symlink_to(os.path.relpath(target, link.parent)),
    "to a chain": to_a_chain,
    "to itself": lambda link, target: link.symlink_to(link.name),
}


@pytest.mark.slow
@pytest.mark.parametrize("through", [check, run])
def test_a_link_at_any_path_that_a_run_uses_is_refused_before_anything_is_touched(
    through: Callable[[Path, Path], str], cooked: tuple[Path, set[Path], list[Path]], tmp_path: Path
) -> None:
    recipe, used, _ = cooked
    names = {path.name for path in used}
    assert names >= {
        ".lock",
        "log.txt",
        "log.jsonl",
        "latest",
        ".record.json.part",
        "unfinished",
        "published.old",
    }
    for number, path in enumerate(sorted(used)):
        for kind in LINKS if through is check else [list(LINKS)[number % len(LINKS)]]:
            place = tmp_path / f"{number} {kind}"
            runs, target = place / "runs", outside(place / "outside")
            (runs / path).parent.mkdir(parents=True)
            LINKS[kind](runs / path, target)
            before = contents(place)
            assert f"'{runs / path}' is a symbolic link" in through(recipe, runs)
            assert contents(place) == before


@pytest.mark.slow
def test_what_a_record_lists_is_on_disk_before_it_and_each_folder_after_its_files(
    cooked: tuple[Path, set[Path], list[Path]],
) -> None:
    recipe, _, synced = cooked
    records = list((recipe.parent / "runs").glob("*/*-*/record.json"))
    assert {record.parent.name.split("-")[0] for record in records} == {"train", "evaluate", "merge"}
    for record in records:
        stage = record.parent
        before = synced[: synced.index(stage / ".record.json.part")]
        order = {path: number for number, path in enumerate(before)}
        for path in (stage / name for name in read_record(stage)["files"]):
            assert order[path] < order[path.parent] <= order[stage] < order[stage.parent]


def test_a_link_in_place_of_the_runs_folder_or_on_the_way_to_it_is_refused_and_the_place_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside(tmp_path / "outside" / "soup")
    (tmp_path / "runs").symlink_to(tmp_path / "outside")
    (tmp_path / "new").symlink_to(tmp_path / "nowhere")
    (tmp_path / "outside" / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    for runs, link in ((tmp_path / "runs", tmp_path / "runs"), (Path("runs"), "runs"), (Path("new"), "new")):
        with pytest.raises(MachineError) as caught:
            check_run_folder(runs / "soup")
        assert str(caught.value) == (
            f"'{link}' is a symbolic link; name the folder itself: --runs {os.path.realpath(runs)}"
        )
    with pytest.raises(MachineError, match=f"^'runs' is .*: --runs {tmp_path}/outside/inner$"):
        check_run_folder(Path("runs/inner/soup"))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    recipe = config_recipe(tmp_path, "gpt2", {})
    for name in (".lock", "log.txt", "train-00000000/log.jsonl"):
        pipe = tmp_path / name.replace("/", " ") / "kitchen" / name
        pipe.parent.mkdir(parents=True)
        os.mkfifo(pipe)
        runs = tmp_path / name.replace("/", " ")
        assert run(recipe, runs) == (
            f"'{pipe}' is neither a file nor a folder, which no run makes; "
            "remove it, or choose another folder: --runs DIR"
        )
    with socket.socket(socket.AF_UNIX) as unix:
        (tmp_path / "soup").mkdir()
        unix.bind(str(tmp_path / "soup" / "s"))
        with pytest.raises(MachineError, match="neither a file nor a folder"):
            check_run_folder(tmp_path / "soup")


@pytest.mark.parametrize("name", [".lock", "log.txt"])
def test_a_file_that_is_another_one_by_a_hard_link_is_not_written(name: str, tmp_path: Path) -> None:
    recipe, other = config_recipe(tmp_path, "gpt2", {}), tmp_path / "other"
    other.write_text(SECRET)
    (tmp_path / "runs" / "kitchen").mkdir(parents=True)
    (tmp_path / "runs" / "kitchen" / name).hardlink_to(other)
    assert f"{name}' is a hard link to another file" in run(recipe, tmp_path / "runs")
    assert other.read_text() == SECRET


def test_folders_that_are_nested_without_end_are_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath("soup", *["a"] * DEEPEST)
    deep.mkdir(parents=True)
    with pytest.raises(MachineError, match="is a folder nested too deeply"):
        check_run_folder(tmp_path / "soup")


@pytest.mark.parametrize(
    ("name", "target", "ours"),
    [
        ("train", "../train-0123abcd", True),
        (".train.part", "../train-0123abcd", True),
        ("train", "../merge-0123abcd", False),
        ("train", "../train-0123abcd/..", False),
        ("train", "../train-0123abcd/adapter", False),
        ("train", "../../train-0123abcd", False),
        ("train", "/runs/soup/train-0123abcd", False),
    ],
)
def test_the_only_links_are_those_to_the_newest_folder_of_each_stage(
    name: str, target: str, ours: bool, tmp_path: Path
) -> None:
    (tmp_path / "soup" / "latest").mkdir(parents=True)
    (tmp_path / "soup" / "latest" / name).symlink_to(target)
    with (
        nullcontext() if ours else pytest.raises(MachineError, match="is a symbolic link, which no run makes")
    ):
        check_run_folder(tmp_path / "soup")
    (tmp_path / "soup" / "latest" / name).rename(tmp_path / "soup" / name)
    with pytest.raises(MachineError, match="is a symbolic link"):
        check_run_folder(tmp_path / "soup")


@pytest.mark.parametrize("output", [None, "output"])
def test_a_trainer_of_ones_own_follows_no_link_in_its_folder(
    output: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / (output or "runs/kitchen/trainer")
    folder.mkdir(parents=True)
    (folder / "checkpoints").symlink_to(outside(tmp_path / "outside"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MachineError, match="checkpoints' is a symbolic link"):
        loracook.trainer(loracook.load(config_recipe(tmp_path, "gpt2", {})), output)


def contents(folder: Path) -> dict[Path, object]:
    """Everything below a folder: what files hold, where links lead, and when the rest was changed."""
    return {
        path: path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else path.stat().st_mtime_ns
        for path in folder.rglob("*")
    }


def test_a_run_that_is_named_as_the_folder_of_a_stage_is_a_run(tmp_path: Path) -> None:
    """As the trials of a sweep are, on whose digests their names end."""
    (tmp_path / "runs" / "short-069a79f6" / "train-0123abcd").mkdir(parents=True)
    (tmp_path / "runs" / "short-069a79f6" / "latest").mkdir()
    assert run_folders(tmp_path / "runs") == [tmp_path / "runs" / "short-069a79f6"]
