"""What each stage of a recipe needs of a device's memory at its peak."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from loracook.estimate.batches import Batch
from loracook.estimate.fake_step import scoring
from loracook.estimate.memory import Memory, autocast, generation_cache, training
from loracook.estimate.weight_bytes import merged_parameters

if TYPE_CHECKING:
    import torch

    from loracook.estimate.meta_model import Blueprint
    from loracook.recipe.recipe import Recipe


@dataclass(frozen=True)
class Needs:
    """Bytes: training part by part, the cache while answers are written, the peaks of the other stages."""

    training: Memory
    generation_cache: int
    evaluate: int
    merge: int

    @property
    def peaks(self) -> dict[str, int]:
        """What each stage needs at its peak; each runs alone."""
        return {"train": self.training.peak, "evaluate": self.evaluate, "merge": self.merge}

    @property
    def parts(self) -> dict[str, int]:
        """What training takes, part by part, the cache for answers, and the peaks of the other stages."""
        parts = asdict(self.training) | {"generation_cache": self.generation_cache} | self.peaks
        return {name: count for name, count in parts.items() if name not in ("peak", "train")}

    def too_large(self, room: int) -> list[str]:
        """The stages that need more than so many bytes."""
        return [stage for stage, peak in self.peaks.items() if peak > room]


def needs(recipe: Recipe, drawn: Blueprint, batch: Batch, *, device: str) -> Needs:
    """The memory of a recipe's stages on a device of kind "cpu" or "cuda" for the largest training batch.

    Raises:
        WalkError: the model's code does not run without weights, so that nothing can be foreseen.
    """
    trained = _trained(recipe, drawn, batch, device)
    cache, working = 0, 0
    if "evaluate" in recipe:
        cache = _cache(recipe, drawn, batch)
        loaded = drawn.weights.stored + drawn.weights.constants + trained.adapter + drawn.weights.unpacked
        size = recipe["evaluate"]["batch_size"]
        losses = _scoring(recipe, drawn, batch, size, None, device) if "eval" in recipe["dataset"] else 0
        working = loaded + max(cache, losses)
    return Needs(
        training=trained,
        generation_cache=cache,
        evaluate=working,
        merge=_merge(recipe, drawn, trained.adapter) if "merge" in recipe else 0,
    )


def _trained(recipe: Recipe, drawn: Blueprint, batch: Batch, device: str) -> Memory:
    """The memory of training, or of the evaluations amid it where they need more."""
    train = recipe["train"]
    found = training(drawn.tuned, drawn.weights, batch, train, device=device)
    if train.get("eval_strategy", "no") == "no":
        return found
    size = train.get("per_device_eval_batch_size", 8)
    losses = _scoring(recipe, drawn, batch, size, autocast(train), device)
    kept = found.kept + found.allocator + drawn.weights.unpacked
    return replace(found, peak=max(found.peak, kept + losses))


def _scoring(
    recipe: Recipe, drawn: Blueprint, batch: Batch, size: int, mixed: torch.dtype | None, device: str
) -> int:
    """What the losses of an evaluation take beside weights, for rows as long as the longest of training."""
    length = recipe["train"]["max_length"] if batch.flat else batch.length
    rows = Batch(tuple(range(size)), length, masked=size > 1)
    return scoring(drawn.tuned, rows, autocast=mixed, device=device)


def merged_bytes(recipe: Recipe, drawn: Blueprint) -> int:
    """Bytes of the merged model in the dtype it is saved in."""
    import torch

    dtype = recipe["merge"].get("dtype", recipe["base_model"]["dtype"]) if "merge" in recipe else "auto"
    size: int = (drawn.dtype if dtype == "auto" else getattr(torch, dtype)).itemsize
    return merged_parameters(drawn.tuned) * size


def _cache(recipe: Recipe, drawn: Blueprint, batch: Batch) -> int:
    section = recipe["evaluate"]
    prompts, asked = section.get("prompts", []), section.get("rows", 0)
    # A token of a prompt has one character at least.
    longest = batch.length if asked else max(map(len, prompts), default=0)
    length = min(longest, recipe["train"]["max_length"]) + section["generation"]["max_new_tokens"]
    beams = section["generation"].get("num_beams", 1)
    rows = int(min(section["batch_size"], asked + len(prompts)) * beams)
    return generation_cache(drawn.config, batch_size=rows, length=length, element_size=drawn.dtype.itemsize)


def _merge(recipe: Recipe, drawn: Blueprint, adapter: int) -> int:
    """Plain weights of the whole base, the adapter, and one weight with its difference in float32."""
    largest = max(int(part.numel()) for part in drawn.tuned.parameters())
    return merged_bytes(recipe, drawn) + adapter + 2 * 4 * largest
