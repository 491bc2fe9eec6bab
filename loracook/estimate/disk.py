"""What a run writes to the disk, and what a push sends out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import MachineError
from loracook.estimate.stage_memory import merged_bytes
from loracook.estimate.weight_bytes import optimizer_bytes
from loracook.store.files import free_bytes
from loracook.store.release import ADAPTER, CARD
from loracook.units import size

if TYPE_CHECKING:
    from loracook.estimate.meta_model import Blueprint
    from loracook.recipe.derived import Steps
    from loracook.recipe.recipe import Recipe

SMALL = 8 << 20
"""Bytes of a tokenizer and other small files; the largest tokenizers take some 20 MB."""


def disk(recipe: Recipe, drawn: Blueprint, steps: Steps | None, runs: Path) -> dict[str, Any]:
    """Bytes that a run writes: adapter, checkpoints kept at once, merged model; and what is free.

    Args:
        recipe: what is run.
        drawn: its model.
        steps: the optimizer steps, None when not known.
        runs: the folder that run folders lie in.
    """
    adapter = adapter_bytes(drawn) + SMALL
    checkpoint = adapter + optimizer_bytes(drawn.tuned, recipe["train"])
    written = checkpoints(recipe, steps)
    kept = _kept(recipe, written)
    merged = merged_bytes(recipe, drawn) if "merge" in recipe else 0
    published = pushed_bytes(recipe, drawn) if "folder" in recipe.sections.get("push", {}) else 0
    return {
        "adapter_bytes": adapter,
        "checkpoint_bytes": checkpoint,
        "checkpoints_written": written,
        "checkpoints_kept": kept,
        "merged_bytes": merged,
        "published_bytes": published,
        "total_bytes": adapter + merged + published + checkpoint * _at_once(kept, written),
        "free_bytes": free_bytes(runs),
    }


def check_disk(recipe: Recipe, drawn: Blueprint, steps: Steps | None, stage: Path) -> None:
    """Raise MachineError where there is no room for what training will write beside what `stage` holds."""
    found = disk(recipe, drawn, steps, stage)
    training = found["total_bytes"] - found["merged_bytes"] - found["published_bytes"]
    needed = training - sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
    if needed > found["free_bytes"]:
        fewer = "write train.save_total_limit: 1 or " if recipe["train"]["save_total_limit"] > 1 else ""
        free = f"{size(needed)} are needed, {size(found['free_bytes'])} are free in {stage.parent}"
        raise MachineError(f"the disk is too small: {free}; {fewer}name another folder: --runs DIR")


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
        "bytes": pushed_bytes(recipe, drawn),
        "needs": "--push" if "repo_id" in section else "",
    }


def pushed_bytes(recipe: Recipe, drawn: Blueprint) -> int:
    """Bytes of what a push brings out."""
    merged = recipe["push"]["what"] == "merged"
    return (merged_bytes(recipe, drawn) if merged else adapter_bytes(drawn)) + SMALL


def adapter_bytes(drawn: Blueprint) -> int:
    """Bytes of the saved adapter as PEFT saves it; embeddings travel along where tokens were added."""
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(drawn.tuned, save_embedding_layers=drawn.added_tokens > 0)
    return sum(part.numel() * part.element_size() for part in saved.values())


def checkpoints(recipe: Recipe, steps: Steps | None) -> int | None:
    """How many checkpoints a run writes: after the first step, as often as asked, and at the end.

    None where the steps are not known, and under save_strategy best, which depends on the losses.
    """
    train = recipe["train"]
    strategy, often = train["save_strategy"], train["save_steps"]
    if strategy == "no":
        return 0
    if steps is None or strategy == "best" or (strategy == "epoch" and not steps.per_epoch):
        return None
    every = often if often >= 1 else math.ceil(steps.total * often)
    every = steps.per_epoch if strategy == "epoch" else every
    return len({1, steps.total, *range(every, steps.total, every)})


def _kept(recipe: Recipe, written: int | None) -> int:
    """The checkpoints that stay: the newest, and the best one beside it where that is loaded at the end."""
    limit: int = recipe["train"]["save_total_limit"]
    if recipe["train"].get("load_best_model_at_end"):
        limit = max(limit, 2)
    return limit if written is None else min(limit, written)


def _at_once(kept: int, written: int | None) -> int:
    """The most checkpoints there are at a time: a new one is written before the oldest goes."""
    return kept + 1 if written is None else min(kept + 1, written)
