"""What each stage of a recipe needs of a device's memory at its peak."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from loracook.model.memory import Memory, generation_cache, training

if TYPE_CHECKING:
    from loracook.model.blueprint import Blueprint
    from loracook.recipe import Recipe
    from loracook.steps import Batch

STAGES = ("train", "evaluate", "merge")


@dataclass(frozen=True)
class Needs:
    """Bytes: training part by part, the cache while answers are written, the peaks of the other stages."""

    training: Memory
    generation_cache: int
    evaluate: int
    merge: int

    @property
    def peak(self) -> int:
        """The most that any stage needs; each runs alone."""
        return max(self.training.peak, self.evaluate, self.merge)

    def as_json(self) -> dict[str, Any]:
        """The bytes as plain JSON values."""
        parts = asdict(self.training)
        peak = parts.pop("peak")
        more = {"generation_cache": self.generation_cache, "evaluate": self.evaluate, "merge": self.merge}
        return {"peak_bytes": peak, "parts": parts | more}


def needs(recipe: Recipe, drawn: Blueprint, batch: Batch, *, device: str) -> Needs:
    """The memory of a recipe's stages on a device of kind "cpu" or "cuda" for the largest training batch."""
    trained = training(drawn.tuned, drawn.weights, batch, recipe["train"], device=device)
    cache = _cache(recipe, drawn, batch) if "evaluate" in recipe else 0
    loaded = drawn.weights.stored + drawn.weights.constants + trained.adapter
    return Needs(
        training=trained,
        generation_cache=cache,
        evaluate=loaded + cache + drawn.weights.unpacked if "evaluate" in recipe else 0,
        merge=_merge(recipe, drawn, trained.adapter) if "merge" in recipe else 0,
    )


def merged_bytes(recipe: Recipe, drawn: Blueprint) -> int:
    """Bytes of the merged model in the dtype it is saved in."""
    import torch

    dtype = recipe["merge"].get("dtype", recipe["base_model"]["dtype"]) if "merge" in recipe else "auto"
    return int(drawn.counts.base * (drawn.dtype if dtype == "auto" else getattr(torch, dtype)).itemsize)


def _cache(recipe: Recipe, drawn: Blueprint, batch: Batch) -> int:
    section = recipe["evaluate"]
    written = section["generation"]["max_new_tokens"]
    length = min(batch.length, recipe["train"]["max_length"]) + written
    beams = section["generation"].get("num_beams", 1)
    rows = int(section["batch_size"] * beams)
    return generation_cache(drawn.config, batch_size=rows, length=length, element_size=drawn.dtype.itemsize)


def _merge(recipe: Recipe, drawn: Blueprint, adapter: int) -> int:
    """Plain weights of the whole base, the adapter, and one weight with its difference in float32."""
    largest = max(int(part.numel()) for part in drawn.tuned.parameters())
    return merged_bytes(recipe, drawn) + adapter + 2 * 4 * largest
