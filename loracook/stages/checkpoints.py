"""Checkpoints that can be trusted: sealed with the hash of every file, and only sealed ones resumed from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from loracook.disk import broken_file, file_facts, sync, write_whole

MANIFEST = "manifest.json"


def seal(checkpoint: Path) -> None:
    """Bring a checkpoint's files to the disk, then add the manifest that makes it one to resume from."""
    for path in checkpoint.rglob("*"):
        sync(path)
    write_whole(checkpoint / MANIFEST, json.dumps(file_facts(checkpoint), indent=1))


def newest_sealed(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `folder` that verifies, and a sentence on each newer one, now removed.

    Newest goes by the step in the name, never by the clock.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    dropped: list[str] = []
    for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[-1]), reverse=True):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint, dropped
        dropped.append(f"{checkpoint.name} is not used: {fault}")
        shutil.rmtree(checkpoint)
    return None, dropped


def _fault(checkpoint: Path) -> str | None:
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return "it was not finished when the run stopped"
    broken = broken_file(checkpoint, json.loads(manifest.read_text(encoding="utf-8")))
    return broken and f"{broken} is not as it was written"
