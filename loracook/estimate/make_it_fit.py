"""The changes to a recipe that would make it fit a device, each with what it saves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loracook import model
from loracook.estimate.batches import largest_batch
from loracook.estimate.estimate import Estimate
from loracook.estimate.memory import StageMemory, stage_memory
from loracook.estimate.meta_model import MetaModel, meta_model
from loracook.recipe.recipe import Recipe

Sections = Mapping[str, Mapping[str, Any]]
HELPS = {
    "train": {"train"},
    "quantization": {"train", "evaluate"},
    "evaluate": {"evaluate"},
    "merge": {"merge", "export"},
}
"""The stages that take less memory after a change to a section."""
WORTH = 100
"""A change that saves less than a hundredth of the peak is not worth making."""


@dataclass(frozen=True)
class Change:
    """What to write, the bytes it saves after the changes before it, and whether all together then fit."""

    write: str
    saves: int
    fits: bool


def fitting_changes(estimate: Estimate) -> Iterator[Change]:
    """What to change, the cheapest first, each on top of those before it, until every stage fits the device.

    Cheapest is what alters the result least: recomputed activations, smaller batches at the same effective
    batch size, 4-bit weights, a smaller optimizer state, and shorter rows last. Quantization comes first
    where the weights alone are too large.

    Raises:
        FakeStepError: the model's code does not run without weights.
    """
    recipe, base, room = estimate.recipe, estimate.meta_model, estimate.device.bytes
    candidates = list(_candidates(recipe))
    if model.stored_quantization(base.config):
        candidates = [candidate for candidate in candidates if "quantization" not in candidate[1]]
    if base.weights.stored > room:
        candidates.sort(key=lambda candidate: "quantization" not in candidate[1])
    before = _memory(estimate, recipe, base)
    for write, sections in candidates:
        too_large = set(before.too_large(room))
        if not too_large.intersection(*(HELPS[section] for section in sections)):
            continue
        changed = _with(recipe, sections)
        quantized = "quantization" in sections
        changed_base = meta_model(changed, base.folder, base.vocabulary) if quantized else base
        after = _memory(estimate, changed, changed_base)
        saves = max(before.peaks[stage] - after.peaks[stage] for stage in too_large)
        if saves * WORTH > max(before.peaks.values()):
            yield Change(write, saves, not after.too_large(room))
            recipe, base, before = changed, changed_base, after


def _memory(estimate: Estimate, recipe: Recipe, base: MetaModel) -> StageMemory:
    return stage_memory(recipe, base, largest_batch(recipe, estimate.rows), device=estimate.device.kind)


def _candidates(recipe: Recipe) -> Iterator[tuple[str, Sections]]:
    train = recipe["train"]
    if not train.get("activation_checkpointing"):
        yield "train.activation_checkpointing: true", {"train": {"activation_checkpointing": True}}
    size, accumulation = train["per_device_train_batch_size"], train.get("gradient_accumulation_steps", 1)
    while size > 1:
        size, accumulation = size // 2, accumulation * 2
        smaller = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        yield ", ".join(f"train.{key}: {value}" for key, value in smaller.items()), {"train": smaller}
    yield from _of_other_stages(recipe)
    if "quantization" not in recipe:
        four_bit = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        yield "quantization: {load_in_4bit: true, bnb_4bit_quant_type: nf4, …}", {"quantization": four_bit}
    if "8bit" not in train.get("optim", ""):
        yield "train.optim: adamw_8bit", {"train": {"optim": "adamw_8bit"}}
    for length in filter(None, (train["max_length"] // 2, train["max_length"] // 4)):
        yield f"train.max_length: {length}", {"train": {"max_length": length}}


def _of_other_stages(recipe: Recipe) -> Iterator[tuple[str, Sections]]:
    if "evaluate" in recipe and recipe["evaluate"]["batch_size"] > 1:
        yield "evaluate.batch_size: 1", {"evaluate": {"batch_size": 1}}
    if "merge" in recipe:
        yield "merge.dtype: bfloat16", {"merge": {"dtype": "bfloat16"}}


def _with(recipe: Recipe, sections: Sections) -> Recipe:
    changed = {name: {**recipe.sections.get(name, {}), **values} for name, values in sections.items()}
    return replace(recipe, sections={**recipe.sections, **changed})
