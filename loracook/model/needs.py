"""What each stage of a recipe needs of a device's memory at its peak."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from loracook.model.memory import Memory, generation_cache, training
from loracook.model.weights import merged_parameters

if TYPE_CHECKING:
    from loracook.model.blueprint import Blueprint
    from loracook.recipe import Recipe
    from loracook.steps import Batch


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
    size: int = (drawn.dtype if dtype == "auto" else getattr(torch, dtype)).itemsize
    return merged_parameters(drawn.tuned) * size


def _cache(recipe: Recipe, drawn: Blueprint, batch: Batch) -> int:
    section = recipe["evaluate"]
    written = section["generation"]["max_new_tokens"]
    length = min(batch.length, recipe["train"]["max_length"] or batch.length) + written
    beams = section["generation"].get("num_beams", 1)
    rows = int(section["batch_size"] * beams)
    return generation_cache(drawn.config, batch_size=rows, length=length, element_size=drawn.dtype.itemsize)


def _merge(recipe: Recipe, drawn: Blueprint, adapter: int) -> int:
    """Plain weights of the whole base, the adapter, and one weight with its difference in float32."""
    largest = max(int(part.numel()) for part in drawn.tuned.parameters())
    return merged_bytes(recipe, drawn) + adapter + 2 * 4 * largest
