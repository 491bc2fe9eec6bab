"""Records of finished stages, as a run writes them, and run folders made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracook.errors import dotted
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import entries
from loracook.store.files import file_facts
from loracook.store.record import weight_hashes, write_record


def record(**facts: Any) -> dict[str, Any]:
    """A record with these facts, and nothing else to say."""
    empty = {key: {} for key in ("sections", "origins", "result", "before", "versions", "files")}
    return {"stage": "train", "digest": "", "name": "soup", "finished": "", "seconds": 0.0} | empty | facts


def finished_stage(
    run: Path,
    name: str,
    files: Mapping[str, str] | None = None,
    *,
    before: tuple[Path, ...] = (),
    **facts: Any,
) -> Path:
    """A finished stage in a run folder, as in train-0000000a, that `latest` names; minutes go by with each."""
    folder = run / name
    folder.mkdir(parents=True)
    texts = {"adapter/adapter.safetensors": name} if files is None else files
    for file, text in texts.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, "utf-8")
    stage, _, digest = name.partition("-")
    minutes = len(list(run.glob("*/record.json")))
    own = {"finished": f"2026-11-29T08:{minutes:02}:00+00:00", "files": file_facts(folder)}
    write_record(folder, record(stage=stage, digest=digest, before=weight_hashes(before), **own | facts))
    (run / "latest").mkdir(exist_ok=True)
    (run / "latest" / stage).unlink(missing_ok=True)
    (run / "latest" / stage).symlink_to(f"../{name}")
    return folder


READS = ("base_model", "dataset", "template", "lora", "train")
"""The sections that decide a training."""


def sections(recipe: Recipe, *names: str) -> dict[str, Any]:
    """What the record of a stage states of a recipe: these sections, and who set each value."""
    read = {name: recipe[name] for name in names if name in recipe}
    return {
        "sections": read,
        "origins": {dotted(path): str(recipe.origin(path)) for path, _ in entries(read)},
    }
