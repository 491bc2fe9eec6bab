"""How many processes train together, and the recipe of each of them."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loracook.errors import RecipeError
from loracook.recipe.layers import with_value
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from loracook.estimate.estimate import Estimate

MOST = 64
"""Numbers of processes that a message names, at most."""
BATCH, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"


@dataclass(frozen=True)
class Processes:
    """How training is spread: over how many processes."""

    count: int = 1


ONE = Processes()


def default(recipe: Recipe, devices: int) -> Processes:
    """A process for each of these devices, or as many fewer as the rows of a step can be divided among."""
    for count in range(devices, 1, -1):
        with suppress(RecipeError):
            divided(recipe, count)
            return Processes(count)
    return ONE


def divided(recipe: Recipe, count: int) -> Recipe:
    """The recipe of each of so many processes: the rows of an optimizer step stay those of the recipe.

    Accumulation is divided first, then the rows of a batch.

    Raises:
        RecipeError: these rows cannot be divided, or their order would depend on the number of processes.
    """
    if count == 1:
        return recipe
    batch, steps = recipe["train"][BATCH], recipe["train"].get(STEPS, 1)
    rows = batch * steps
    if rows % count:
        possible = ", ".join(str(number) for number in range(1, MOST) if rows % number == 0)
        more = f"write {STEPS}: {count // math.gcd(batch, count)}"
        cannot = f"{rows} rows in a step cannot be divided among {count} processes"
        message = f"{cannot}; {more}, or use {possible} processes"
        raise RecipeError([recipe.problem(("train", BATCH), message)])
    _check_order(recipe, count)
    shared = math.gcd(steps, count)
    sections = with_value(recipe.sections, ("train", STEPS), steps // shared)
    return replace(recipe, sections=with_value(sections, ("train", BATCH), batch * shared // count))


def of_each_process(whole: Estimate, count: int) -> Estimate:
    """The estimate of a training with the memory and the largest batch of each of so many processes."""
    from loracook.estimate.estimate import estimate

    if count == 1:
        return whole
    own = divided(whole.recipe, count)
    each = estimate(own, whole.meta_model, whole.rows, device=whole.device)
    return replace(whole, memory=each.memory, batch=each.batch)


def shared(own: Recipe, count: int) -> str:
    """What each of so many processes takes of a step, in words; `own` is its recipe."""
    batch, steps = own["train"][BATCH], own["train"].get(STEPS, 1)
    return (
        f"{batch} row{'s' * (batch != 1)} \N{MULTIPLICATION SIGN} {steps} a step in each of {count} processes"
    )


def _check_order(recipe: Recipe, count: int) -> None:
    """Raise RecipeError where the order of rows depends on the number of processes."""
    if recipe["dataset"].get("streaming"):
        message = f"{count} processes cannot take streamed rows in one order; remove it"
        raise RecipeError([recipe.problem(("dataset", "streaming"), message)])
    if recipe["train"].get("train_sampling_strategy") == "batch_rebalance":
        message = f"makes other batches for {count} processes than for one; use group_by_length"
        raise RecipeError([recipe.problem(("train", "train_sampling_strategy"), message)])
