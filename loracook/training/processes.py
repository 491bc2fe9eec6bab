"""How many processes train together, with which strategy, and the recipe of each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loracook.errors import LoracookError, RecipeError
from loracook.recipe.layers import with_value
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from loracook.estimate.estimate import Estimate
    from loracook.estimate.memory import Parts
    from loracook.estimate.meta_model import MetaModel

MOST = 64
"""Numbers of processes that a message names, at most."""
BATCH, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"


AUTO, DDP, FSDP2 = STRATEGIES = ("auto", "ddp", "fsdp2")


HELD = {DDP: "the whole base model (DDP)", FSDP2: "a part of each layer (FSDP2)"}
"""What a process has of the base model with each strategy."""


@dataclass(frozen=True)
class Processes:
    """How training is spread: over how many processes, and what each has of the base model.

    All of it with "ddp", a part of each layer with "fsdp2"; "auto" is the first of them that fits.
    """

    count: int = 1
    strategy: str = AUTO


ONE = Processes()


def default(recipe: Recipe, devices: int) -> int:
    """One for each of these devices, or as many fewer as the rows of a step can be divided among."""
    for count in range(devices, 1, -1):
        with suppress(RecipeError):
            divided(recipe, count)
            return count
    return 1


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


def of_each_process(whole: Estimate, asked: Processes) -> tuple[Estimate, Processes]:
    """The estimate of a training with the memory and the largest batch of each process, and its strategy."""
    from loracook.estimate.estimate import estimate

    own = divided(whole.recipe, asked.count)
    each = estimate(own, whole.meta_model, whole.rows, device=whole.device) if asked.count > 1 else whole
    each, processes = with_strategy(each, asked)
    return replace(whole, memory=each.memory, batch=each.batch), processes


def with_strategy(each: Estimate, asked: Processes) -> tuple[Estimate, Processes]:
    """The estimate of one of several processes as its strategy has it; "auto" is decided here.

    Raises:
        RecipeError: it cannot be trained in shards, as the user wants it.
    """
    from loracook.training.sharding import check_shardable, sharded_parts

    if asked.count == 1 and asked.strategy == FSDP2:
        raise LoracookError("--strategy fsdp2 shards among several processes; add --processes 2")
    if asked.count == 1:
        return each, replace(asked, strategy=DDP)
    each = _training_in(each, lambda parts: parts | _buckets(each.meta_model))
    if asked.strategy == DDP:
        return each, replace(asked, strategy=DDP)
    try:
        check_shardable(each.recipe, each.meta_model)
    except RecipeError:
        if asked.strategy == FSDP2:
            raise
        return each, replace(asked, strategy=DDP)
    if asked.strategy == AUTO and "train" not in each.too_large:
        return each, replace(asked, strategy=DDP)
    sharded = _training_in(each, lambda parts: sharded_parts(parts, each.meta_model, asked.count))
    return sharded, replace(asked, strategy=FSDP2)


def _training_in(each: Estimate, change: Callable[[Parts], Parts]) -> Estimate:
    """The estimate with other parts of the memory that training takes."""
    from loracook.estimate.memory import StageMemory

    if each.memory is None:
        return each
    stages = each.memory.stages
    return replace(each, memory=StageMemory({**stages, "train": change(stages["train"])}))


def _buckets(meta_model: MetaModel) -> Parts:
    """What DDP adds: the gradients once more, in the buckets that it sends (its gradient_as_bucket_view)."""
    trained = (weight for weight in meta_model.tuned.parameters() if weight.requires_grad)
    return {"gradient_buckets": sum(weight.numel() * weight.element_size() for weight in trained)}


def shared(own: Recipe, processes: Processes) -> str:
    """What each of several processes takes of a step and has of the model, in words; `own` is its recipe."""
    batch, steps = own["train"][BATCH], own["train"].get(STEPS, 1)
    rows = f"{batch} row{'s' * (batch != 1)} \N{MULTIPLICATION SIGN} {steps} a step"
    return f"{rows} in each of {processes.count} processes, with {HELD[processes.strategy]}"


def _check_order(recipe: Recipe, count: int) -> None:
    """Raise RecipeError where the order of rows depends on the number of processes."""
    if recipe["dataset"].get("streaming"):
        message = f"{count} processes cannot take streamed rows in one order; remove it"
        raise RecipeError([recipe.problem(("dataset", "streaming"), message)])
    if recipe["train"].get("train_sampling_strategy") == "batch_rebalance":
        message = f"makes other batches for {count} processes than for one; use group_by_length"
        raise RecipeError([recipe.problem(("train", "train_sampling_strategy"), message)])
