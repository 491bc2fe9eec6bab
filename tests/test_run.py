"""What `loracook run` says where nothing may be uploaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cooking import twin_file

LORACOOK = Path(sys.executable).parent / "loracook"


def test_a_run_without_the_users_word_uploads_nothing_and_says_how_to(tmp_path: Path) -> None:
    sections = {
        "evaluate": None,
        "dataset": {"path": "./rows.jsonl", "eval": None},
        "push": {"repo_id": "me/it"},
    }
    file = twin_file("opt-350m-lora", tmp_path, **sections)
    done = subprocess.run(
        [LORACOOK, "run", file.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert "push is left out: nothing is uploaded without --push\n" in done.stdout
    assert done.stdout.endswith("\nto upload it, run the same command again with --push\n")
    assert (done.stderr, list(tmp_path.glob("runs/*/push-*"))) == ("", [])


def test_a_stage_that_is_not_there_is_refused_when_all_is_done_too(tmp_path: Path) -> None:
    file = twin_file("opt-350m-lora", tmp_path, evaluate=None, dataset={"path": "./rows.jsonl", "eval": None})
    command = [LORACOOK, "run", file.name]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    wrong = subprocess.run(
        [*command, "--only", "nope"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (2, "the recipe has no stage 'nope'; it has train\n")
    done = subprocess.run([*command, "--only", "train"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
