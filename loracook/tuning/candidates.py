"""The settings that are tried: those that keep the result, and others that the user allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from loracook.recipe.layers import with_value
from loracook.recipe.recipe import Recipe
from loracook.recipe.rules import rule_problems
from loracook.recipe.schema import part_at
from loracook.recipe.yaml_values import flow
from loracook.tuning.measured import Key, Setting

ALLOWED = {
    "packing": "pack several rows into one sequence: other batches",
    "grouping": "batch rows of similar length: another order",
    "optimizer": "8-bit optimizer states",
    "dropout": "batches that draw other random numbers",
}
"""The words of --allow: what each lets be tried that changes the result."""
ROWS, STEPS = ("train", "per_device_train_batch_size"), ("train", "gradient_accumulation_steps")
CHECKPOINTING = ("train", "activation_checkpointing")
KWARGS, OFFLOADING = ("train", "activation_checkpointing_kwargs"), ("train", "activation_offloading")
PADDING_FREE, PACKING = ("train", "padding_free"), ("train", "packing")
ORDER, OPTIMIZER = ("train", "train_sampling_strategy"), ("train", "optim")
ATTENTION, WORKERS = ("base_model", "attn_implementation"), ("train", "dataloader_num_workers")
COMPILE = ("train", "torch_compile")
UNTUNED = "untuned"
KERNELS = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Attention implementations that a package of their own brings."""


@dataclass(frozen=True)
class Group:
    """Settings of which one is chosen; of an `ordered` one, neighbours are tried as long as they are faster.

    `changes` is the word of --allow where they change the result.
    """

    name: str
    options: tuple[Setting, ...]
    changes: str = ""
    ordered: bool = False


def groups(
    recipe: Recipe, *, device: str, attention: str, random: bool, allowed: Iterable[str]
) -> list[Group]:
    """What is tried for a recipe, one group after the other.

    Args:
        recipe: the untuned one.
        device: the kind of device that it trains on.
        attention: the implementation that its model runs with.
        random: whether training draws random numbers, as for dropout, others for other batches.
        allowed: the words of --allow.
    """
    found = [
        Group("checkpointing", tuple(_checkpointing(device))),
        Group("padding", tuple(_padding(recipe)), "dropout" if random else ""),
        Group("attention", tuple(_attention(attention, device))),
        Group("rows per pass", tuple(_rows(recipe)), "dropout" if random else "", ordered=True),
        Group("optimizer", tuple(_optimizer(recipe))),
        Group("compilation", ({COMPILE: True}, {COMPILE: False})),
        Group("loader", ({WORKERS: 0}, {WORKERS: 2})),
        Group("packing", ({PACKING: True},), "packing"),
        Group("grouping", ({ORDER: "group_by_length"},), "grouping"),
        Group("8-bit optimizer", ({OPTIMIZER: "adamw_8bit"},), "optimizer"),
    ]
    words = {"", *allowed}
    return [group for group in found if group.options and group.changes in words]


def _checkpointing(device: str) -> Iterator[Setting]:
    """Those that take most memory first."""
    plain: Setting = {KWARGS: None, OFFLOADING: False}
    yield {CHECKPOINTING: False, **plain}
    for some in ({"every_n_layers": 2}, {"selective": True}):
        yield {CHECKPOINTING: True, KWARGS: some, OFFLOADING: False}
    yield {CHECKPOINTING: True, **plain}
    if device == "cuda":
        yield {CHECKPOINTING: True, KWARGS: None, OFFLOADING: True}


def _rows(recipe: Recipe) -> Iterator[Setting]:
    """All ways to take the rows of a step, fewest in a pass first, where they stay the same rows."""
    train = recipe["train"]
    order = train.get("train_sampling_strategy", "random")
    if order not in ("random", "sequential") or train.get("dataloader_drop_last"):
        return
    rows = train[ROWS[1]] * train.get(STEPS[1], 1)
    for size in range(1, rows + 1):
        if rows % size == 0:
            yield {ROWS: size, STEPS: rows // size}


def _padding(recipe: Recipe) -> Iterator[Setting]:
    if not recipe["train"].get("packing"):
        yield {PADDING_FREE: True}
        yield {PADDING_FREE: False}


def _attention(now: str, device: str) -> Iterator[Setting]:
    flash = [name for name, package in KERNELS.items() if device == "cuda" and find_spec(package)]
    yield from ({ATTENTION: name} for name in (*flash, "sdpa", "eager") if name != now)


def _optimizer(recipe: Recipe) -> Iterator[Setting]:
    if recipe["train"].get("optim") == "adamw_torch":
        yield {OPTIMIZER: "adamw_torch_fused"}


def changed(recipe: Recipe, setting: Setting) -> Recipe | None:
    """The recipe with a setting; None where its rules refuse that."""
    sections = dict(recipe.sections)
    for path, value in setting.items():
        sections = with_value(sections, path, value)
    if any(problem.severity == "error" for problem in rule_problems(sections)):
        return None
    return replace(recipe, sections=sections)


def over(recipe: Recipe, *settings: Setting) -> Setting:
    """Settings one after the other, without what the recipe says itself."""
    together = {path: value for setting in settings for path, value in setting.items()}
    return {path: value for path, value in together.items() if value != _value(recipe, path)}


def _value(recipe: Recipe, path: Key) -> Any:
    """What a recipe says of a key, or upstream where it says nothing."""
    section, key = path
    value = recipe[section].get(key)
    return (part_at(path) or {}).get("default") if value is None else value


def allowed_by(setting: Setting, of: Sequence[Group]) -> str:
    """The word of --allow that a setting requires, empty where it keeps the result."""
    changing = ((group.changes, option) for group in of if group.changes for option in group.options)
    return next((word for word, option in changing if _share(setting, option)), "")


def _share(one: Setting, other: Setting) -> bool:
    """Whether two settings give a key the same value."""
    return any(path in other and other[path] == value for path, value in one.items())


def text_of(setting: Setting) -> str:
    """A setting as people write it: its keys without their sections."""
    return ", ".join(f"{path[-1]}: {flow(value)}" for path, value in setting.items())
