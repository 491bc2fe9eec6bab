"""What a run writes to the disk, and what a push sends out."""

import math
from dataclasses import dataclass
from pathlib import Path

from loracook.errors import MachineError
from loracook.estimate.estimate import Estimate
from loracook.estimate.memory import exported_bytes, merged_bytes
from loracook.estimate.meta_model import MetaModel
from loracook.estimate.weight_bytes import optimizer_bytes
from loracook.recipe.derived import Steps
from loracook.recipe.recipe import Recipe
from loracook.store.files import free_bytes
from loracook.store.release import ADAPTER, CARD
from loracook.units import size

SMALL = 8 << 20
"""Bytes of a tokenizer and other small files; the largest tokenizers take some 20 MB."""


@dataclass(frozen=True)
class DiskUse:
    """Bytes that a run writes, and what is free; `checkpoints_written` is None where it cannot be known."""

    adapter_bytes: int
    checkpoint_bytes: int
    checkpoints_written: int | None
    checkpoints_kept: int
    merged_bytes: int
    exported_bytes: int
    published_bytes: int
    free_bytes: int

    @property
    def training_bytes(self) -> int:
        """The most that training takes; a new checkpoint is written before the oldest is deleted."""
        kept, written = self.checkpoints_kept + 1, self.checkpoints_written
        return self.adapter_bytes + self.checkpoint_bytes * (kept if written is None else min(kept, written))

    @property
    def total_bytes(self) -> int:
        """The most that all stages take together."""
        return self.training_bytes + self.merged_bytes + self.exported_bytes + self.published_bytes


@dataclass(frozen=True)
class Upload:
    """What a push would send out: where to, how visible, which files, their bytes, the flag it requires."""

    what: str
    to: str
    visibility: str
    files: str
    bytes: int
    requires: str


def disk_use(estimate: Estimate, runs: Path) -> DiskUse:
    """What a run writes below the folder `runs`."""
    recipe, base, push = estimate.recipe, estimate.meta_model, estimate.recipe.sections.get("push", {})
    adapter, written = adapter_bytes(base) + SMALL, checkpoints(recipe, estimate.steps)
    return DiskUse(
        adapter_bytes=adapter,
        checkpoint_bytes=adapter + optimizer_bytes(base.tuned, recipe["train"]),
        checkpoints_written=written,
        checkpoints_kept=_kept(recipe, written),
        merged_bytes=merged_bytes(recipe, base) if "merge" in recipe else 0,
        exported_bytes=exported_bytes(recipe, base) + SMALL if "export" in recipe else 0,
        published_bytes=_pushed_bytes(recipe, base) if "folder" in push else 0,
        free_bytes=free_bytes(runs),
    )


def check_disk(estimate: Estimate, stage: Path) -> None:
    """Raise MachineError where there is no room for what training writes beyond what `stage` already has."""
    use = disk_use(estimate, stage)
    needed = use.training_bytes - sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
    if needed > use.free_bytes:
        fewer = (
            "write train.save_total_limit: 1 or " if estimate.recipe["train"]["save_total_limit"] > 1 else ""
        )
        free = f"{size(needed)} needed, {size(use.free_bytes)} free in {stage.parent}"
        raise MachineError(f"the disk is too small: {free}; {fewer}name another folder: --runs DIR")


def upload(estimate: Estimate) -> Upload | None:
    """What a push would send out; None without a push section."""
    recipe = estimate.recipe
    if "push" not in recipe:
        return None
    section = recipe["push"]
    weights = "model*.safetensors, config.json" if section["what"] == "merged" else ", ".join(ADAPTER)
    remote, visibility = "repo_id" in section, "private" if section["private"] else "public"
    return Upload(
        what=section["what"],
        to=section.get("repo_id") or f"{section['folder']}/",
        visibility=visibility if remote else "this machine",
        files=f"{weights}, tokenizer files, {CARD}",
        bytes=_pushed_bytes(recipe, estimate.meta_model),
        requires="--push" if remote else "",
    )


def adapter_bytes(base: MetaModel) -> int:
    """Bytes of the adapter as PEFT saves it; embeddings are saved along where tokens were added."""
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(base.tuned, save_embedding_layers=base.added_tokens > 0)
    return sum(tensor.numel() * tensor.element_size() for tensor in saved.values())


def checkpoints(recipe: Recipe, steps: Steps | None) -> int | None:
    """How many checkpoints a run writes: after the first step, at the recipe's interval, and at the end.

    None where the steps are unknown, and under save_strategy best, which depends on the losses.
    """
    train = recipe["train"]
    strategy, interval = train["save_strategy"], train["save_steps"]
    if strategy == "no":
        return 0
    if steps is None or strategy == "best" or (strategy == "epoch" and not steps.per_epoch):
        return None
    every = interval if interval >= 1 else math.ceil(steps.total * interval)
    every = steps.per_epoch if strategy == "epoch" else every
    return len({1, steps.total, *range(every, steps.total, every)})


def _pushed_bytes(recipe: Recipe, base: MetaModel) -> int:
    merged = recipe["push"]["what"] == "merged"
    return (merged_bytes(recipe, base) if merged else adapter_bytes(base)) + SMALL


def _kept(recipe: Recipe, written: int | None) -> int:
    """The checkpoints that stay: the newest, and the best one beside it where that is loaded at the end."""
    limit: int = recipe["train"]["save_total_limit"]
    if recipe["train"].get("load_best_model_at_end"):
        limit = max(limit, 2)
    return limit if written is None else min(limit, written)
