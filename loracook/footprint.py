"""What a run writes to the disk, and what a push sends out."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.model.needs import merged_bytes
from loracook.parcel import ADAPTER, CARD

if TYPE_CHECKING:
    from loracook.model.blueprint import Blueprint
    from loracook.recipe import Recipe

SMALL = 8 << 20
"""Bytes of a tokenizer and other small files; the largest tokenizers take some 20 MB."""


def disk(
    recipe: Recipe, drawn: Blueprint, *, optimizer: int, steps: int | None, runs: Path
) -> dict[str, Any]:
    """Bytes that a run writes: adapter, checkpoints kept at once, merged model; and what is free.

    Args:
        recipe: what is run.
        drawn: its model.
        optimizer: bytes of the optimizer's state, which every checkpoint holds.
        steps: optimizer steps in all, None when not known.
        runs: the folder that run folders lie in.
    """
    adapter = adapter_bytes(drawn) + SMALL
    checkpoint = adapter + optimizer
    written = checkpoints(recipe, steps)
    kept = _kept(recipe, written)
    merged = merged_bytes(recipe, drawn) if "merge" in recipe else 0
    return {
        "adapter_bytes": adapter,
        "checkpoint_bytes": checkpoint,
        "checkpoints_written": written,
        "checkpoints_kept": kept,
        "merged_bytes": merged,
        # A checkpoint is written before the oldest one goes.
        "total_bytes": adapter + merged + checkpoint * ((kept or 0) + 1 if written else 0),
        "free_bytes": shutil.disk_usage(_existing(runs)).free,
    }


def push(recipe: Recipe, drawn: Blueprint) -> dict[str, Any]:
    """What a push would send out, where to and how visible; an empty mapping without a push section."""
    if "push" not in recipe:
        return {}
    section = recipe["push"]
    merged = section["what"] == "merged"
    weights = "model*.safetensors, config.json" if merged else ", ".join(ADAPTER)
    return {
        "what": section["what"],
        "to": section.get("repo_id") or f"{section['folder']}/",
        "leaves_the_machine": "repo_id" in section,
        "visibility": ("private" if section["private"] else "public")
        if "repo_id" in section
        else "this machine",
        "files": f"{weights}, tokenizer files, {CARD}",
        "bytes": (merged_bytes(recipe, drawn) if merged else adapter_bytes(drawn)) + SMALL,
        "needs": "--push" if "repo_id" in section else "",
    }


def adapter_bytes(drawn: Blueprint) -> int:
    """Bytes of the saved adapter; the embeddings travel along where tokens were added."""
    from loracook.model.weights import trained_bytes

    base = drawn.tuned.get_base_model()
    head = base.get_output_embeddings()
    embeddings = {id(part): part for part in (base.get_input_embeddings().weight, head.weight)}
    grown = (
        sum(part.numel() * part.element_size() for part in embeddings.values()) if drawn.added_tokens else 0
    )
    return int(trained_bytes(drawn.tuned) + grown)


def checkpoints(recipe: Recipe, steps: int | None) -> int | None:
    """How many checkpoints so many steps leave behind: after the first, as often as asked, at the end."""
    train = recipe["train"]
    if train["save_strategy"] == "epoch":
        return 1 + math.ceil(float(train["num_train_epochs"]))
    if steps is None or train["save_strategy"] != "steps":
        return 0 if train["save_strategy"] == "no" else None
    every: int = train["save_steps"] if train["save_steps"] >= 1 else math.ceil(steps * train["save_steps"])
    return len({1, steps, *range(every, steps, every)})


def _kept(recipe: Recipe, written: int | None) -> int | None:
    limit: int | None = recipe["train"].get("save_total_limit")
    if limit is None or written is None:
        return written if limit is None else limit
    return min(limit, written)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.absolute().parent)
