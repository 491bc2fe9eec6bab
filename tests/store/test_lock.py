"""A lock that another run holds, and one that the file system refuses."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from loracook.errors import LockedError, MachineError
from loracook.store import lock


def test_a_folder_that_another_process_has_locked_is_refused(tmp_path: Path) -> None:
    with (tmp_path / lock.LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError):
            lock.refuse_locked(tmp_path)
        with pytest.raises(LockedError), lock.locked(tmp_path):
            pass


def test_a_folder_without_a_lock_or_that_does_not_exist_is_free(tmp_path: Path) -> None:
    lock.refuse_locked(tmp_path)
    lock.refuse_locked(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_git_passes_over_a_runs_folder_that_is_made_and_sees_one_that_was_there(tmp_path: Path) -> None:
    lock.make_run_folder(tmp_path / "runs" / "soup")
    assert (tmp_path / "runs" / ".gitignore").read_text("utf-8") == "*\n"
    lock.make_run_folder(tmp_path / "soup")
    assert not (tmp_path / ".gitignore").exists()


def test_a_file_system_that_cannot_lock_is_not_taken_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, kind: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(MachineError, match="no locks available"), lock.locked(tmp_path):
        pass


def test_a_folder_in_place_of_the_lock_is_called_one(tmp_path: Path) -> None:
    (tmp_path / lock.LOCK).mkdir()
    with pytest.raises(MachineError, match=r"\.lock' is a folder; remove it, or"):
        lock.refuse_locked(tmp_path)
