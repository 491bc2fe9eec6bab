"""`loracook clean` removes what no run needs, and nothing else: what is finished stays finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from loracook.cli import commands
from loracook.store.files import seal
from loracook.store.lock import locked
from loracook.store.record import why_not_done
from loracook.store.runs import records
from tests.records import finished_stage
from tests.store.test_run_folder import contents
from tests.training.test_checkpoints import write

NEW, OLD = "train-0000000b", "train-0000000a"


@pytest.fixture(autouse=True)
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two trainings, each with checkpoints, an evaluation and a merge, of which only the first was pushed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORACOOK_CACHE", str(tmp_path / "cache"))
    run = Path("runs/soup")
    for digest in ("a", "b"):
        train = finished_stage(run, f"train-0000000{digest}")
        for step in (4, 8):
            write(train / "checkpoints", step)
        (train / "checkpoints/unfinished").rmdir()
        evaluate = finished_stage(run, f"evaluate-0000000{digest}", {"metrics.json": "{}"}, before=(train,))
        merge = finished_stage(
            run, f"merge-0000000{digest}", {"model/m.safetensors": digest}, before=(train,)
        )
        if digest == "a":
            finished_stage(run, "push-0000000a", {}, before=(train, evaluate, merge))
    return run


def clean(*arguments: str, code: int | None = 0) -> list[str]:
    ran = CliRunner().invoke(commands, ["clean", *arguments], standalone_mode=False)
    if ran.exception:
        raise ran.exception
    assert ran.return_value == code
    return ran.stdout.splitlines()


def listed(*arguments: str, code: int = 0) -> dict[str, str]:
    """Why each path could go, or has gone."""
    rows = [line.split("  ") for line in clean(*arguments, code=code) if line.startswith(("runs", os.sep))]
    return {row[0].strip().removeprefix("runs/soup/"): row[-1] for row in rows}


def files() -> int:
    """The bytes of all files below the runs folder."""
    return sum(
        path.lstat().st_size for path in Path("runs").rglob("*") if path.is_file() and not path.is_symlink()
    )


def test_what_could_go_is_listed_and_nothing_is_touched() -> None:
    finished_stage(Path("runs/soup"), "push-0000000b", {}, before=(Path("runs/soup") / NEW,))
    before = contents(Path("runs"))
    assert listed() == {
        OLD: f"superseded by {NEW}",
        "evaluate-0000000a": "superseded by evaluate-0000000b",
        "merge-0000000a": "superseded by merge-0000000b",
        "push-0000000a": "superseded by push-0000000b",
        f"{NEW}/checkpoints/checkpoint-4": "checkpoint of a finished stage",
        f"{NEW}/checkpoints/checkpoint-8": "checkpoint of a finished stage",
    }
    assert clean()[-1].endswith(" in all; to remove it: loracook clean runs --yes")
    assert contents(Path("runs")) == before


def test_what_latest_names_was_made_from_is_kept() -> None:
    assert {path for path in listed() if "checkpoint" not in path} == set()  # all went into the push


def test_yes_frees_what_it_said_and_every_finished_stage_still_verifies(kitchen: Path) -> None:
    finished_stage(kitchen, "push-0000000b", {}, before=(kitchen / NEW,))
    said, before = clean(), files()
    done = clean("--yes")
    assert done[:-1] == said[:-1]
    assert done[-1] == said[-1].replace("to remove it: loracook clean runs --yes", "freed")
    assert float(said[-1].split()[0]) * 1024 == pytest.approx(before - files(), rel=0.01)
    assert said[-1].split()[1] == "KiB"
    assert {path.name for path in records(kitchen)} == {
        NEW,
        "evaluate-0000000b",
        "merge-0000000b",
        "push-0000000b",
    }
    later = records(kitchen).keys() - {kitchen / NEW}
    assert {why_not_done(kitchen / NEW, ()), *(why_not_done(path, [kitchen / NEW]) for path in later)} == {
        None
    }
    assert clean("--yes") == ["nothing to remove"]


def unfinished(run: Path) -> None:
    (run / NEW / "record.json").unlink()


def corrupt(run: Path) -> None:
    (run / NEW / "record.json").write_text("{")


def harmed(run: Path) -> None:
    (run / NEW / "adapter/adapter.safetensors").write_text("x")


@pytest.mark.parametrize("harm", [unfinished, corrupt, harmed])
def test_what_a_run_could_resume_from_or_go_back_to_is_kept(
    harm: Callable[[Path], None], kitchen: Path
) -> None:
    (kitchen / "latest/push").unlink()
    harm(kitchen)
    assert set(listed()) == {
        *(f"{OLD}/checkpoints/checkpoint-{step}" for step in (4, 8)),
        "evaluate-0000000a",
        "merge-0000000a",
    }


def test_what_does_not_carry_our_record_or_manifest_is_kept(kitchen: Path) -> None:
    (kitchen / "latest/push").unlink()
    checkpoints = kitchen / NEW / "checkpoints"
    (checkpoints / "checkpoint-4/manifest.json").unlink()
    shutil.copytree(checkpoints / "checkpoint-8", checkpoints / "skipped-1-checkpoint-8")
    (kitchen / OLD / "notes.txt").write_text("the one with more salt")
    (kitchen / "merge-0000000a/model/mine.gguf").write_text("")
    (kitchen / "train-0000000c").mkdir()
    (kitchen / "mine").mkdir()
    Path("runs/notes/train-0000000a").mkdir(parents=True)
    assert set(listed("--yes")) == {
        f"{NEW}/checkpoints/checkpoint-8",
        f"{OLD}/checkpoints/checkpoint-4",
        f"{OLD}/checkpoints/checkpoint-8",
        "evaluate-0000000a",
    }
    assert (kitchen / OLD / "notes.txt").exists()
    assert (checkpoints / "skipped-1-checkpoint-8").exists()


def test_without_latest_nothing_is_superseded(kitchen: Path) -> None:
    shutil.rmtree(kitchen / "latest")
    assert all("checkpoint" in path for path in listed())


def test_what_a_killed_run_or_clean_left_behind_goes(kitchen: Path) -> None:
    (kitchen / NEW / ".record.json.part").write_text("{")
    (kitchen / "latest/.train.part").symlink_to(f"../{NEW}")
    write(kitchen / NEW / "checkpoints", 9)  # leaves the folder it was written in
    shutil.copytree(kitchen / OLD, kitchen / ".train-0000000f.part")
    shutil.copytree(kitchen / OLD, kitchen / "published.part")
    found = {path for path in listed("--yes") if "checkpoint-" not in path}
    assert found == {
        f"{NEW}/.record.json.part",
        "latest/.train.part",
        f"{NEW}/checkpoints/unfinished",
        ".train-0000000f.part",
    }
    assert (kitchen / NEW / "adapter").exists()
    assert clean() == ["nothing to remove"]


def test_a_run_at_work_is_left_alone(kitchen: Path) -> None:
    before = contents(Path("runs"))
    with locked(kitchen):
        before = contents(Path("runs"))
        for arguments in ((), ("--yes",)):
            lines = clean(*arguments, code=6 if arguments else 0)
            assert lines[0] == "nothing to remove"
            assert lines[1].startswith("skipping runs/soup: another run is using 'runs/soup'")
        assert contents(Path("runs")) == before


def test_a_link_in_a_run_folder_leaves_all_of_it_alone(kitchen: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside, 4)
    shutil.rmtree(kitchen / NEW / "checkpoints")
    (kitchen / NEW / "checkpoints").symlink_to(outside)
    trained = finished_stage(Path("runs/salt"), "train-0000000a")
    write(trained / "checkpoints", 4)
    before = contents(outside), contents(kitchen)
    lines = clean("--yes", code=3)
    assert "runs/salt/train-0000000a/checkpoints/checkpoint-4" in lines[0] + lines[1]
    assert lines[-1].startswith(
        "skipping runs/soup: 'runs/soup/train-0000000b/checkpoints' is a symbolic link"
    )
    assert (contents(outside), contents(kitchen)) == before


def test_rows_that_other_versions_prepared_go(tmp_path: Path) -> None:
    from loracook.data.cache import replacing

    rows = tmp_path / "cache/data"
    with replacing(rows / "0123456789abcdef") as folder:
        (folder / "statistics.json").write_text("{}")
    old = rows / "fedcba9876543210"
    shutil.copytree(rows / "0123456789abcdef", old)
    seal(old, prepared_by={"versions": {"loracook": "0.0.1"}})
    shutil.copytree(old, rows / "mine")
    (rows / "00000000000000ff").mkdir()
    (rows / "00000000000000aa").symlink_to(old)
    lines = listed("--yes")
    assert [path for path in lines if "cache" in path] == [str(old)]
    assert lines[str(old)] == "prepared by other versions"
    assert {path.name for path in rows.iterdir()} == {
        *("0123456789abcdef", "mine", "00000000000000ff", "00000000000000aa"),
    }


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_each_stage_whole_or_gone(kitchen: Path) -> None:
    (kitchen / "latest/push").unlink()
    script = (
        "import os, sys\n"
        "from loracook.cli import commands\n"
        "left = int(sys.argv[1])\n"
        "def hook(event, arguments):\n"
        "    global left\n"
        "    if event in ('os.rename', 'os.remove', 'os.rmdir'):\n"
        "        left -= 1\n"
        "        if left < 0: os._exit(9)\n"
        "sys.addaudithook(hook)\n"
        "commands(['clean', '--yes'], standalone_mode=False)\n"
    )
    shutil.copytree("runs", "whole", symlinks=True)
    for moment in (0, 2, 9):
        shutil.rmtree("runs")
        shutil.copytree("whole", "runs", symlinks=True)
        killed = subprocess.run([sys.executable, "-c", script, str(moment)], check=False)
        assert killed.returncode == 9
        assert {why_not_done(path, ()) for path in kitchen.glob("[a-z]*-*")} == {None}
        clean("--yes")
        assert sorted(path.name for path in kitchen.iterdir()) == [
            *(".lock", "evaluate-0000000b", "latest", "merge-0000000b", "push-0000000a", NEW),
        ]
