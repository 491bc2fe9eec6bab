"""What `loracook run` says of what it does, leaves out and refuses."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from html import unescape
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from loracook.cli import commands
from loracook.errors import MachineError
from tests import processes
from tests.tiny_recipes import twin_file

SECTIONS = {
    "evaluate": None,
    "dataset": {"path": "./rows.jsonl", "eval": None},
    "merge": {},
    "push": {"repo_id": "me/it"},
}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`loracook run` in a folder, where nobody can be asked."""
    return processes.run("run", "recipe.yaml", *options, cwd=folder)


def ends(folder: Path, *options: str) -> tuple[int, str, str]:
    """The exit code of such a run, the last line of what it shows, and its errors."""
    done = run(folder, *options)
    return done.returncode, done.stdout.splitlines()[-1], done.stderr


@pytest.fixture(scope="module")
def cooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of which the training alone was run."""
    folder = tmp_path_factory.mktemp("cooked")
    twin_file("opt-350m-lora", folder, **SECTIONS)
    assert ends(folder, "--only", "train") == (
        0,
        "still to do: merge, push; run the same command without --only",
        "",
    )
    return folder


@pytest.fixture
def kitchen(cooked: Path, tmp_path: Path) -> Path:
    """The same in a place of its own."""
    return shutil.copytree(cooked, tmp_path / "kitchen", symlinks=True)


def test_a_run_without_push_uploads_nothing_and_names_the_flag(kitchen: Path) -> None:
    done = run(kitchen)
    assert "push is skipped: uploading to " in done.stdout
    assert done.stdout.endswith("\nto upload it, run the same command with --push\n")
    assert (done.stderr, list(kitchen.glob("runs/*/push-*"))) == ("", [])

    alone = run(kitchen, "--only", "merge")
    assert "\nmerge is done; nothing was run\n" in alone.stdout
    assert alone.stdout.endswith("\nto upload it, run the same command with --push and without --only\n")


def test_a_run_with_only_the_upload_left_changes_nothing(kitchen: Path) -> None:
    recipe = kitchen / "recipe.yaml"
    sections = json.loads(recipe.read_text())
    recipe.write_text(json.dumps({name: sections[name] for name in sections if name != "merge"}))
    (log,) = kitchen.glob("runs/*/log.txt")
    log.unlink()
    before = {path: path.stat().st_mtime_ns for path in kitchen.rglob("*")}
    done = run(kitchen)
    assert {path: path.stat().st_mtime_ns for path in kitchen.rglob("*")} == before
    assert (done.returncode, done.stderr) == (0, "")
    assert "\neverything but push is done; nothing was run\n" in done.stdout
    assert done.stdout.endswith("\nto upload it, run the same command with --push\n")


def test_an_upload_alone_is_refused_without_push(kitchen: Path) -> None:
    refused = "uploading to 'me/it' requires --push\n"
    assert ends(kitchen, "--only", "push") == (2, "", refused)
    assert not list(kitchen.glob("runs/*/push-*"))


def test_a_stage_that_is_done_is_not_run_again_alone(kitchen: Path) -> None:
    done = run(kitchen, "--only", "train")
    assert (done.returncode, "\ntrain is done; nothing was run\n" in done.stdout) == (0, True)
    assert done.stdout.endswith("\nstill to do: merge, push; run the same command without --only\n")


def test_an_unknown_stage_is_refused(kitchen: Path) -> None:
    refused = "the recipe has no stage 'nope'; it has train, merge, push\n"
    assert ends(kitchen, "--only", "nope") == (2, "", refused)


def test_a_folder_that_is_locked_is_refused_before_anything_is_read(kitchen: Path) -> None:
    (kitchen / "rows.jsonl").unlink()
    with (kitchen / "runs" / "opt-350m-lora" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = run(kitchen)
    told = "another run is using 'runs/opt-350m-lora'; wait for it to finish, or stop it\n"
    assert (second.returncode, second.stdout, second.stderr) == (6, "", told)


def test_a_runs_folder_without_a_name_is_refused(kitchen: Path) -> None:
    done = run(kitchen, "--runs", "")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "Error: Invalid value for '--runs': the folder name is empty; use --runs DIR\n"
    )


@pytest.mark.parametrize("runs", ["rows.jsonl/x", "taken"])
def test_a_runs_folder_that_cannot_be_one_is_refused(kitchen: Path, runs: str) -> None:
    (kitchen / "taken").mkdir()
    (kitchen / "taken" / "opt-350m-lora").touch()
    (kitchen / "loop").symlink_to("nowhere")
    refused = f"cannot create the folder '{runs}/opt-350m-lora': a file is in the way; "
    assert ends(kitchen, "--runs", runs) == (2, "", f"{refused}choose another folder: --runs DIR\n")


def test_a_runs_folder_that_nobody_may_write_to_is_this_machines_fault(kitchen: Path) -> None:
    refused = "cannot write to '/proc/loracook/opt-350m-lora': no such file or directory; "
    assert ends(kitchen, "--runs", "/proc/loracook") == (
        3,
        "",
        f"{refused}choose another folder: --runs DIR\n",
    )


def test_a_run_leaves_a_report_and_one_that_fails_says_in_it_why(kitchen: Path) -> None:
    (report,) = kitchen.glob("runs/*/report.html")
    assert "Trained, and not compared with the base model: the recipe has no evaluate section." in (
        report.read_text("utf-8")
    )
    (weights,) = kitchen.glob("runs/*/train-*/adapter/adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (record,) = kitchen.glob("runs/*/train-*/record.json")
    # A record that is newer than the weights: they are not looked at before the next stage reads them.
    time.sleep(0.05)
    os.chmod(record, 0o600)
    code, _, said = ends(kitchen)
    assert code == 2
    assert f"merge failed: {said.strip()}" in unescape(report.read_text("utf-8"))
    code, _, refused = ends(kitchen, "--only", "push")  # which does not replace why the run failed
    assert code == 2
    both = (
        f'merge failed: {said.strip()}</p>\n<p class="worse">The last command ended early: {refused.strip()}'
    )
    assert both in unescape(report.read_text("utf-8"))
    listed = processes.run("runs", cwd=kitchen).stdout
    assert "failed" in listed
    assert f"merge: {said.strip()}" in listed


def test_a_report_that_cannot_be_written_ends_no_run(kitchen: Path) -> None:
    (report,) = kitchen.glob("runs/*/report.html")
    report.unlink()
    (report / "in the way").mkdir(parents=True)
    done = run(kitchen)
    assert (done.returncode, done.stderr) == (0, "")
    assert "report.html was not written; log.txt says why; " in done.stdout
    assert "IsADirectoryError" in (report.parent / "log.txt").read_text("utf-8")


def test_a_gate_that_is_not_met_ends_every_run_until_it_is_lowered(tmp_path: Path) -> None:
    def attempt(bound: float) -> subprocess.CompletedProcess[str]:
        gate = {"loss": {"at_most": bound}}
        evaluate = {"require": gate, "generation": {"max_new_tokens": 2}}
        dataset = {"path": "./rows.jsonl", "eval": {"rows": 4}}
        twin_file(
            "opt-350m-lora",
            tmp_path,
            **SECTIONS | {"evaluate": evaluate, "dataset": dataset, "push": {"folder": "published"}},
        )
        return run(tmp_path)

    for _ in range(2):  # the second one has nothing to do
        failed = attempt(0.5)
        assert failed.returncode == 7
        assert "evaluate.require.loss.at_most: " in failed.stderr
        assert "  loss " in failed.stdout  # the table
        assert "  not run   merge, push\n" in failed.stdout
        assert not list(tmp_path.glob("runs/*/merge-*"))
    assert attempt(1000).returncode == 0
    assert list(tmp_path.glob("runs/*/merge-*"))


def test_more_processes_than_gpus_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    recipe = twin_file("opt-350m-lora", tmp_path, **SECTIONS)
    ran = CliRunner().invoke(commands, ["run", str(recipe), "--processes", "2"])
    assert isinstance(ran.exception, MachineError)
    assert "use at most 1" in str(ran.exception)
    assert not (tmp_path / "runs").exists()
