"""The run folder, locked by one process at a time."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from loracook.errors import LockedError, LoracookError, MachineError

LOCK = ".lock"
OTHER_FOLDER = "choose another folder: --runs DIR"


def make_run_folder(run: Path, file: str = LOCK) -> None:
    """Create the run folder, and check that `file` and new files can be written there.

    Raises:
        LoracookError: the path, or a parent of it, is a file.
        MachineError: the folder is not writable, or the disk is full.
    """
    try:
        _make_ignored_by_git(run.parent)
        run.mkdir(exist_ok=True)
        (run / file).touch()
        TemporaryFile(dir=run).close()
    except (FileExistsError, NotADirectoryError) as error:
        message = f"cannot create the folder '{run}': a file is in the way; {OTHER_FOLDER}"
        raise LoracookError(message) from error
    except OSError as error:
        raise MachineError(f"cannot write to '{run}': {cause(error)}; {OTHER_FOLDER}") from error


def _make_ignored_by_git(runs: Path) -> None:
    """Create the folder of all runs where it is missing, so that git passes over what is in it."""
    if not runs.exists():
        runs.mkdir(parents=True, exist_ok=True)
        (runs / ".gitignore").write_text("*\n", encoding="utf-8")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Lock the run folder for this process; the kernel releases the lock however the process ends.

    Raises:
        LockedError: another process holds the lock.
        MachineError: the file system cannot lock files.
    """
    with open(run / LOCK, "a", opener=its_own) as file:
        _acquire(file, fcntl.LOCK_EX, run)
        yield


def is_locked(run: Path) -> bool:
    """Whether another process works in a run folder."""
    try:
        refuse_locked(run)
    except LockedError:
        return True
    return False


def refuse_locked(run: Path) -> None:
    """Raise LockedError when another process holds the lock of a run folder; changes nothing there."""
    try:
        file = os.fdopen(its_own(str(run / LOCK), os.O_RDONLY))
    except OSError:  # no run has started there; what else is wrong `make_run_folder` reports
        return
    with file:
        _acquire(file, fcntl.LOCK_SH, run)


def _acquire(file: TextIO, kind: int, run: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"another run is using '{run}'; wait for it to finish, or stop it") from error
    except OSError as error:
        raise MachineError(f"cannot lock '{run}': {cause(error)}; {OTHER_FOLDER}") from error


def its_own(path: str, flags: int) -> int:
    """Open a file that has no other name, an opener for `open`: no link, and no pipe to wait at.

    Raises:
        MachineError: it is a folder, or also another file, by a hard link.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    status = os.fstat(descriptor)
    if status.st_nlink > 1:
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a hard link to another file"
        raise MachineError(f"'{path}' is {what}; remove it, or {OTHER_FOLDER}")
    return descriptor


def cause(error: OSError) -> str:
    """What the system says went wrong, to be part of a message."""
    return (error.strerror or str(error)).lower()
