"""The run folder, held by one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from loracook.errors import LockedError, LoracookError, MachineError

LOCK = ".lock"


def make_run_folder(run: Path, file: str = LOCK) -> None:
    """Make the run folder, and see that `file` and new ones can be written there.

    Raises:
        LoracookError: a file is in the way.
        MachineError: the place is full, or may not be written to.
    """
    other = "name another folder: --runs DIR"
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / file).touch()
        TemporaryFile(dir=run).close()
    except (FileExistsError, NotADirectoryError) as error:
        raise LoracookError(f"'{run}' cannot be a folder, for a file is in the way; {other}") from error
    except OSError as error:
        raise MachineError(f"'{run}' cannot be written to: {str(error.strerror).lower()}; {other}") from error


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder for this process; the kernel lets go of it however the process ends.

    Raises:
        LockedError: another process holds it.
    """
    with (run / LOCK).open("w") as file:
        _take(file, fcntl.LOCK_EX, run)
        yield


def refuse_locked(run: Path) -> None:
    """Raise LockedError when another process holds the run folder; leaves no trace there."""
    with suppress(OSError), (run / LOCK).open() as file:  # where there is none, nobody is working
        _take(file, fcntl.LOCK_SH, run)


def _take(file: TextIO, kind: int, run: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        raise LockedError(f"another run is working in {run}; wait for it, or stop it") from error
