"""The files that a recipe reaches: those of the repository it lies in, and those that the user allows."""

import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

from loracook.errors import Problem, quote
from loracook.recipe.allowed import Allowed
from loracook.recipe.derived import Data
from loracook.recipe.locations import data_files_outside, is_pattern, local_paths

MARKERS = (".git", "pyproject.toml")
"""What the top folder of a repository holds."""
HOLLOW = 2**30
"""Bytes of a file that is looked at for holes; compressed ones have more than a hundredth of them on disk."""
SYSTEM = frozenset(("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr"))
"""Folders at the top of a machine that hold no data of its users."""


class OutOfReachError(ValueError):
    """A recipe may not read this path; says why, and how to allow it."""


@dataclass(frozen=True)
class Reach:
    """The folder that a recipe's relative paths start from, and what it may read: its root, and `allowed`."""

    folder: FilePath
    root: FilePath
    allowed: Allowed

    def resolve(self, text: str | FilePath) -> FilePath:
        """The file at a path, links followed; raises OutOfReachError when the recipe may not read it."""
        try:
            target = (self.folder / text).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise OutOfReachError("cannot be resolved; use another path") from error
        if not self._may_read(target):
            raise OutOfReachError(self._outside(str(text), target))
        if _is_special(target):
            raise OutOfReachError("is not a regular file; name a file or folder")
        if _is_hollow(target):
            raise OutOfReachError("is a file of holes, which would be read for hours; name another")
        return target

    def refusal(self, text: str) -> str | None:
        """Why a recipe may not name this path, and what to write or to allow instead; None when it may."""
        try:
            target = self.resolve(text)
        except OutOfReachError as error:
            return str(error)
        if not text.startswith("/") or self._allows(target):
            return None
        relative = os.path.relpath(target, self.folder.resolve())
        spelled = relative if relative.startswith("../") else f"./{relative}"
        return f"is an absolute path; use {quote(spelled)}"

    def _may_read(self, target: FilePath) -> bool:
        return target.is_relative_to(self.root) or self._allows(target)

    def _allows(self, target: FilePath) -> bool:
        return any(target.is_relative_to(path) for path in self.allowed.paths)

    def _outside(self, text: str, target: FilePath) -> str:
        """Why a path is refused; the folder to allow is spelled as seen from the working folder."""
        links = self._may_read(FilePath(os.path.normpath(self.folder.resolve() / text)))
        spelled = min(os.path.relpath(target), str(target), key=len) if links else self.folder / text
        place = _to_allow(FilePath(split_pattern(os.path.normpath(spelled))[0]))
        way = f", or allow it: --allow-path {shlex.quote(place)}" if place else ""
        if text.startswith("/") and not links:
            return f"is an absolute path; use a path starting with './'{way}"
        where = "recipe's folder" if self.root == self.folder.resolve() else f"repository '{self.root.name}'"
        return f"{'links to a place' if links else 'is'} outside the {where}; move it there{way}"


def _is_special(target: FilePath) -> bool:
    """Whether a device, a pipe or a socket is there, which may never end or never answer."""
    try:
        mode = target.stat().st_mode
    except OSError:  # nothing that could be read
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _is_hollow(target: FilePath) -> bool:
    """Whether a large file holds next to nothing: a few bytes on disk can stand for terabytes of zeros."""
    try:
        found = target.stat()
        if (
            not stat.S_ISREG(found.st_mode)
            or found.st_size < HOLLOW
            or found.st_blocks * 512 > found.st_size // 100
        ):
            return False
        with target.open("rb") as file:  # some file systems do not count blocks, and know no holes either
            return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < found.st_size
    except OSError:  # whoever reads it says so
        return False


def split_pattern(text: str | FilePath, start: FilePath = FilePath()) -> tuple[str, str]:
    """The folder that a glob pattern below `start` begins with, and the rest; a plain path, and nothing.

    Brackets in the name of something that is there are no pattern.
    """
    parts = str(text).split("/")
    above = ("/".join(parts[: number + 1]) for number in range(len(parts)))
    there = (
        not is_pattern(part) or os.path.exists(start / path) for part, path in zip(parts, above, strict=True)
    )
    plain = next((number for number, plain in enumerate(there) if not plain), len(parts))
    return "/".join(parts[:plain]) or str(text)[:1], "/".join(parts[plain:])


def _to_allow(place: FilePath) -> str | None:
    """What to allow so that a place can be read: its folder, the file alone in a home folder; None for places
    where keys and settings are kept.
    """
    real, home = place.resolve(), FilePath(os.path.expanduser("~")).resolve()
    if real.parts[1:2] and real.parts[1] in SYSTEM:
        return None
    if any(part.startswith(".") and part != ".cache" for part in real.parts):
        return None
    is_file = os.path.isfile(place) or (place.suffix and not os.path.isdir(place))
    folder = place.parent if is_file else place
    if home.is_relative_to(folder.resolve()):
        return str(place) if is_file else None
    return os.path.join(folder, "")


def reach_of(file: FilePath, allowed: Allowed) -> Reach:
    """What the recipe in a file reaches."""
    return Reach(file.parent, _repository(file.parent.resolve()), allowed)


def _repository(own: FilePath) -> FilePath:
    """The repository that a folder lies in, the folder itself where it is in none.

    A home folder that is kept in git is no repository of recipes: it holds the user's keys as well.
    """
    home = FilePath(os.path.expanduser("~")).resolve()
    above = (folder for folder in (own, *own.parents) if folder != home)
    return next((each for each in above if any((each / name).exists() for name in MARKERS)), own)


def place_problems(data: Data, reach: Reach) -> Iterator[Problem]:
    """A problem for each path of valid data that the recipe may not read."""
    for path, text in local_paths(data):
        if refusal := reach.refusal(text):
            yield Problem(path, f"{quote(text)} {refusal}", "location")
    for path, text in data_files_outside(data):
        message = f"{quote(text)} is not a file of the data set on the hub; use a path inside it"
        yield Problem(path, message, "location")
