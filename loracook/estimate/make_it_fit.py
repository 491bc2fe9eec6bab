"""The changes to a recipe that would make it fit a device, each with what it saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from loracook.estimate.rows import Survey, batch_of
from loracook.estimate.stage_memory import Needs, needs

if TYPE_CHECKING:
    from loracook.estimate.meta_model import Blueprint
    from loracook.machine.devices import Device
    from loracook.recipe.recipe import Recipe

Sections = Mapping[str, Mapping[str, Any]]
HELPS = {
    "train": {"train"},
    "quantization": {"train", "evaluate"},
    "evaluate": {"evaluate"},
    "merge": {"merge"},
}
"""The stages that need less memory after a change in a section."""
WORTH = 100
"""A change that saves less than a hundredth of the peak is not worth writing."""


@dataclass(frozen=True)
class Change:
    """What to write, the bytes it saves after the changes before it, and whether all together then fit."""

    write: str
    saves: int
    fits: bool

    def as_json(self) -> dict[str, Any]:
        """The change as plain JSON values."""
        return asdict(self)


def changes(
    recipe: Recipe,
    drawn: Blueprint,
    found: Survey | None,
    device: Device,
    redraw: Callable[[Recipe], Blueprint],
) -> Iterator[Change]:
    """What to change, the cheapest first, each on top of those before it, until every stage fits the device.

    Cheapest is what alters the result least: recomputing, smaller batches with as many rows a step, 4-bit
    weights, smaller optimizer state, and shorter rows last. `redraw` gives the blueprint of a recipe that is
    quantized otherwise, which comes first where the weights alone are too large.

    Raises:
        WalkError: the model's code does not run without weights.
    """
    candidates = list(_candidates(recipe))
    if drawn.weights.stored > device.bytes:
        candidates.sort(key=lambda candidate: "quantization" not in candidate[1])
    before = _needs(recipe, drawn, found, device)
    for write, sections in candidates:
        short = set(before.too_large(device.bytes))
        if not short.intersection(*(HELPS[section] for section in sections)):
            continue
        changed = _with(recipe, sections)
        other = redraw(changed) if "quantization" in sections else drawn
        after = _needs(changed, other, found, device)
        saves = max(before.peaks[stage] - after.peaks[stage] for stage in short)
        if saves * WORTH > max(before.peaks.values()):
            yield Change(write, saves, not after.too_large(device.bytes))
            recipe, drawn, before = changed, other, after


def _needs(recipe: Recipe, drawn: Blueprint, found: Survey | None, device: Device) -> Needs:
    return needs(recipe, drawn, batch_of(recipe, found), device=device.kind)


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
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        yield "quantization: {load_in_4bit: true, bnb_4bit_quant_type: nf4, …}", {"quantization": four}
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
    known = recipe.sections
    changed = {name: {**known.get(name, {}), **values} for name, values in sections.items()}
    return replace(recipe, sections={**known, **changed})
