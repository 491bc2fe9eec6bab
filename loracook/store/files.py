"""Atomic writes, SHA-256 hashes, and folders sealed by a manifest of their files."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from loracook.errors import LoracookError, quote
from loracook.store.read_back import FACTS, check_names, read_json

Facts = Mapping[str, Mapping[str, Any]]

MANIFEST = "manifest.json"
"""In a sealed folder: size and hash of each of its files, and further facts about it."""
PART = ".part"
"""Ends the name of a file that is still being written."""


def file_facts(folder: Path, *, exclude: Path | None = None) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of every file below `folder`, by its relative path, sorted.

    The folder `exclude` is skipped, and so are partial files that a killed process left behind.
    """
    paths = (path for path in folder.rglob("*") if exclude is None or not path.is_relative_to(exclude))
    files = sorted(path for path in paths if path.is_file() and not path.name.endswith(PART))
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in files
    }


def free_bytes(path: Path) -> int:
    """Free bytes on the file system that holds a path, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: Path) -> Path:
    """The path, or its nearest parent folder that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a file completely or not at all, synced to disk; an existing file keeps its permissions."""
    part = path.with_name(f".{path.name}{PART}")
    part.unlink(missing_ok=True)  # which may be a hard link
    with part.open("w", encoding="utf-8") as file:
        if path.exists():
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet; raises LoracookError where there is one, or none can be written."""
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise LoracookError(f"{quote(path)} already exists; choose another name") from error
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise LoracookError(f"cannot write {quote(path)}: {error.strerror}") from error


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path, *, exclude: Path | None = None) -> None:
    """Flush everything in a folder to disk, each folder after what is in it; `exclude` is skipped."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if exclude is None or not path.is_relative_to(exclude):
            sync(path)
    sync(folder)
    sync(folder.parent)


def mismatch(folder: Path, facts: Facts, *, since: int = 0) -> str | None:
    """The first file that is missing or corrupt, in words like "a.json is missing"; None when all match.

    Sizes are always compared, hashes only of files that changed since `since`, a change time in ns.
    """
    for name, fact in facts.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != fact["bytes"]:
            return f"{name} is corrupt (size mismatch)"
        if _changed_at(folder, name) >= since and sha256(path) != fact["sha256"]:
            return f"{name} is corrupt (hash mismatch)"
    return None


def _changed_at(folder: Path, name: str) -> int:
    """When a file, or a folder between `folder` and it, was last written, moved or linked, in ns."""
    levels = (path for path in (Path(name), *Path(name).parents) if path.name not in ("", ".."))
    return max((folder / path).lstat().st_ctime_ns for path in levels)


def seal(folder: Path, **facts: Any) -> None:
    """Sync a folder's files to disk and add a manifest with their sizes and hashes, and with `facts`."""
    sync_all(folder)
    write_sealed(folder / MANIFEST, {**facts, "files": file_facts(folder)})


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed folder; raises ValueError when it is corrupt."""
    content = read_sealed(folder / MANIFEST, {"files": FACTS})
    check_names(content["files"])
    return content


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with a digest of itself, so that any later change is noticed."""
    text = json.dumps(content | {"seal": _digest(content)}, indent=1, ensure_ascii=False, default=str)
    write_atomic(path, text + "\n")


def read_sealed(path: Path, shape: Any = dict) -> dict[str, Any]:
    """The JSON that `write_sealed` wrote, of that shape; raises ValueError when it is corrupt."""
    content: dict[str, Any] = read_json(path, shape)
    if content.pop("seal", None) != _digest(content):
        raise ValueError(f"{path} is corrupt (digest mismatch)")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def damage(folder: Path) -> str | None:
    """Why a sealed folder cannot be trusted, or None when it is intact."""
    if not (folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    try:
        files = manifest(folder)["files"]
    except (OSError, ValueError):
        return f"{MANIFEST} is corrupt"
    return mismatch(folder, files)
