"""The door to a run folder: nothing in it leads elsewhere, or is anything but a file or a folder.

Runs are copied, sent and committed, so a run folder may be a stranger's. It is looked through before anything
in it is read or written, and not again: this does not protect from whoever writes to it while a run works.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from loracook.errors import MachineError
from loracook.store.lock import OTHER_FOLDER, cause

LATEST = "latest"
"""The folder of links to each stage's newest folder, the only links in a run folder."""
STAGE = re.compile(r"\.\./([a-z_]+)-[0-9a-f]{8}")
"""Where such a link leads to."""
DEEPEST = 32
"""Levels of folders; to remove a folder a thousand levels deep ends in a RecursionError."""


def check_run_folder(run: Path) -> None:
    """Look through the folder of a run, which need not exist, and at the runs folder around it.

    Raises:
        MachineError: one of them is a link, or something in it is a link, a pipe, a socket or a device.
    """
    relative = () if run.is_absolute() else run.parent.parents  # where a repository may have links
    for place in (*relative, run.parent):
        if place.is_symlink():
            real = os.path.realpath(run.parent)
            raise MachineError(f"'{place}' is a symbolic link; name the folder itself: --runs {real}")
    check_contents(run)


def check_contents(folder: Path) -> None:
    """Look at a folder and everything in it; raises MachineError as `check_run_folder` does."""
    try:
        foreign = next(_foreign(folder, folder / LATEST), None)
    except OSError as error:
        raise MachineError(f"cannot read '{error.filename}': {cause(error)}; {OTHER_FOLDER}") from error
    if foreign is not None:
        raise MachineError(
            f"'{foreign}' is {_kind(foreign)}, which no run makes; remove it, or {OTHER_FOLDER}"
        )


def _foreign(path: Path, latest: Path, depth: int = 0) -> Iterator[Path]:
    """What no run makes, at a path and below it."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and depth < DEEPEST:
            for name in sorted(os.listdir(path)):
                yield from _foreign(path / name, latest, depth + 1)
            return
    except (FileNotFoundError, NotADirectoryError):  # none there, or a run at work has removed it
        return
    if not (stat.S_ISREG(mode) or (path.parent == latest and _leads_to_a_stage(path))):
        yield path


def _leads_to_a_stage(path: Path) -> bool:
    """Whether a path is a link to a folder of the stage that it is named after, finished or being made."""
    target = STAGE.fullmatch(os.readlink(path)) if path.is_symlink() else None
    return target is not None and path.name in (target[1], f".{target[1]}.part")


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "a symbolic link"
    return "a folder nested too deeply" if path.is_dir() else "neither a file nor a folder"
