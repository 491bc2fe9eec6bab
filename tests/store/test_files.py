"""Sealed folders: a manifest that changed is noticed as its files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loracook.data import cache
from loracook.store.files import MANIFEST, damage
from loracook.training import checkpoints


def checkpoint(place: Path) -> Path:
    """A checkpoint as training leaves it."""
    written = checkpoints.staging_folder(place) / "checkpoint-1"
    written.mkdir(parents=True)
    (written / "optimizer.pt").write_text("abc")
    checkpoints.seal(written, {"seed": 42}, tokens=10)
    return checkpoints.final(written)


def rows(place: Path) -> Path:
    """Prepared rows in the cache."""
    with cache.replacing(place / "rows") as fresh:
        (fresh / "train.arrow").write_text("abc")
    return place / "rows"


@pytest.mark.parametrize("turned", [1, 2, 0x80])
@pytest.mark.parametrize("sealed", [checkpoint, rows])
def test_a_flipped_bit_anywhere_in_a_manifest_is_noticed(
    sealed: Callable[[Path], Path], turned: int, tmp_path: Path
) -> None:
    folder = sealed(tmp_path)
    content = (folder / MANIFEST).read_bytes()
    assert damage(folder) is None
    for at in range(len(content)):
        (folder / MANIFEST).write_bytes(content[:at] + bytes([content[at] ^ turned]) + content[at + 1 :])
        assert damage(folder) == f"{MANIFEST} is corrupt"
