"""Files that can be trusted: written whole or not at all, and known by the hash of their content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Facts = Mapping[str, Mapping[str, Any]]

MANIFEST = "manifest.json"
"""In a sealed folder: size and hash of each of its files, and what else was to be kept of it."""
PART = ".part"


def file_facts(folder: Path, *, leave_out: Path | None = None) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of every file below `folder`, by its relative path, sorted.

    What lies below the folder `leave_out` is not looked at, nor what a kill left half written.
    """
    found = (path for path in folder.rglob("*") if leave_out is None or not path.is_relative_to(leave_out))
    files = sorted(path for path in found if path.is_file() and not path.name.endswith(PART))
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in files
    }


def free_bytes(path: Path) -> int:
    """Bytes that are free where a path is, or where it would be."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is either there completely, on the disk itself, or not at all.

    A file that is there already keeps its permissions.
    """
    part = path.with_name(f".{path.name}{PART}")
    with part.open("w", encoding="utf-8") as file:
        if path.exists():
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the kernel bring a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def broken_file(folder: Path, facts: Facts, *, since: int = 0) -> str | None:
    """The first file that is missing or differs from the facts, or None when all agree.

    Contents are compared of what was touched since a change time in ns, sizes of all.
    """
    for name, fact in facts.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != fact["bytes"]:
            return name
        if _touched(folder, name) >= since and sha256(path) != fact["sha256"]:
            return name
    return None


def _touched(folder: Path, name: str) -> int:
    """When a file or a folder on the way to it from `folder` was last written to, moved or linked, in ns."""
    way = (part for part in (Path(name), *Path(name).parents) if part.name not in ("", ".."))
    return max((folder / part).lstat().st_ctime_ns for part in way)


def seal(folder: Path, **also: Any) -> None:
    """Bring a folder's files to the disk, with a manifest that holds their facts and `also`."""
    for path in folder.rglob("*"):
        sync(path)
    write_sealed(folder / MANIFEST, {**also, "files": file_facts(folder)})


def manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a sealed folder says; raises ValueError when it is not as it was written."""
    return read_sealed(folder / MANIFEST)


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with a digest of itself, which notices a flipped bit and whatever else we did not write."""
    text = json.dumps(content | {"seal": _digest(content)}, indent=1, ensure_ascii=False, default=str)
    write_whole(path, text + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote; raises ValueError when it is not as it was written."""
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict) or found.pop("seal", None) != _digest(found):
        raise ValueError(f"{path} is not as it was written")
    return found


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def damage(folder: Path) -> str | None:
    """What is not as it was when a folder was sealed, or None when it can be trusted."""
    if not (folder / MANIFEST).is_file():
        return "it has no manifest"
    try:
        files = manifest(folder)["files"]
    except ValueError:
        return f"{MANIFEST} cannot be read"
    broken = broken_file(folder, files)
    return broken and f"{broken} is not as it was written"
