"""What a run will train, how large and long it is, and what it needs, known before weights are fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.errors import LoracookError, RecipeError, UnreachableError
from loracook.estimate import disk as footprint
from loracook.estimate.batches import Batch
from loracook.estimate.fake_step import WalkError, saved_without_checkpointing
from loracook.estimate.make_it_fit import Change, changes
from loracook.estimate.memory import autocast
from loracook.estimate.meta_model import Blueprint, blueprint, named_tokens, tokenizer_in
from loracook.estimate.rows import Survey, batch_of, steps_of, survey
from loracook.estimate.stage_memory import Needs, needs
from loracook.machine.devices import Device, device_here
from loracook.model.hub_info import Origin, origin
from loracook.model.unsupported import check_rows
from loracook.recipe.derived import Steps

if TYPE_CHECKING:
    from loracook.planner import Plan
    from loracook.recipe.recipe import Recipe


@dataclass(frozen=True)
class Room:
    """The memory that stages need, activations without checkpointing, and changes that make all fit."""

    needs: Needs
    saved_without_checkpointing: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Forecast:
    """All that a plan knows beyond its stages; `unknown` says what could not be known, and why."""

    drawn: Blueprint
    origin: Origin
    survey: Survey | None
    steps: Steps | None
    batch: Batch
    device: Device
    room: Room | None
    disk: dict[str, Any]
    push: dict[str, Any]
    unknown: tuple[str, ...]


def forecast(planned: Plan, cache: Path, device: Device | None = None) -> Forecast:
    """What running a plan will take, from config, tokenizer and data, never from weights.

    Args:
        planned: the recipe's stages.
        cache: where converted models and prepared data are kept.
        device: where it is to run; None for this machine.

    Raises:
        RecipeError: the model cannot be found or is of no kind that is trained here, a module name matches
            nothing, or the data cannot be used.
    """
    recipe, unknown = planned.recipe, list[str]()
    folder = model.fetch_description(recipe, cache)
    found, vocabulary = _surveyed(recipe, folder, cache, unknown)
    drawn = blueprint(recipe, folder, vocabulary)
    if found is not None:
        check_rows(drawn.base, recipe, found.longest)
    batch, steps, place = batch_of(recipe, found), steps_of(recipe, found), device or device_here()

    def redraw(changed: Recipe) -> Blueprint:
        return blueprint(changed, folder, vocabulary)

    try:
        room = _room(recipe, drawn, found, batch, place, redraw)
    except WalkError as error:
        room = None
        unknown.append(
            f"memory: this model's code does not run without weights ({error}); add --probe to measure"
        )
    return Forecast(
        drawn=drawn,
        origin=origin(recipe, folder, unknown),
        survey=found,
        steps=steps,
        batch=batch,
        device=place,
        room=room,
        disk=footprint.disk(recipe, drawn, steps, planned.folder.parent),
        push=footprint.push(recipe, drawn),
        unknown=tuple(unknown),
    )


def _room(
    recipe: Recipe,
    drawn: Blueprint,
    found: Survey | None,
    batch: Batch,
    device: Device,
    redraw: Callable[[Recipe], Blueprint],
) -> Room:
    needed = needs(recipe, drawn, batch, device=device.kind)
    plain = needed.training.activations
    if recipe["train"].get("activation_checkpointing"):
        plain = saved_without_checkpointing(drawn.tuned, batch, autocast=autocast(recipe["train"]))
    fitting = changes(recipe, drawn, found, device, redraw) if needed.too_large(device.bytes) else ()
    return Room(needed, plain, tuple(fitting))


def _surveyed(
    recipe: Recipe, folder: Path, cache: Path, unknown: list[str]
) -> tuple[Survey | None, int | None]:
    """The rows and the size of the vocabulary, where there is a tokenizer and the data can be reached."""
    tokenizer = tokenizer_in(recipe, folder)
    if tokenizer is None:
        unknown.append("tokens and steps: the base model's folder holds no tokenizer")
        unknown.extend(
            f"whether the vocabulary has {token}: counted as new" for token in sorted(named_tokens(recipe))
        )
        return None, None
    tokenizer = data.with_template(recipe, tokenizer)
    try:
        return survey(recipe, tokenizer, cache), len(tokenizer)
    except UnreachableError as error:
        unknown.append(f"tokens and steps: {said(error)}")
        return None, len(tokenizer)


def said(error: LoracookError) -> str:
    """What an error says, without the places in the recipe."""
    problems = error.problems if isinstance(error, RecipeError) else ()
    return "; ".join(problem.message for problem in problems) or str(error)
