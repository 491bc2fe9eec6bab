"""What a recipe asks of its model that the model cannot do, known before weights are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loracook.errors import Problem

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn import Module

    from loracook.recipe import Recipe


def refused(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    """The problems of a recipe with its model, which is on the meta device with the adapter on it."""
    yield from _recomputing(tuned, recipe)
    if "merge" in recipe:
        yield from _merging_shared_embeddings(tuned, recipe)
        yield from _merging_biases(tuned, recipe)


def too_long(model: Module, recipe: Recipe, longest: int) -> Iterator[Problem]:
    """The problem of rows with more tokens than a model with learned positions can read."""
    most = most_positions(model)
    if most is not None and longest > most:
        message = f"a row has {longest} tokens and this model reads {most} at most; write max_length: {most}"
        yield recipe.problem(("train", "max_length"), message)


def most_positions(model: Module) -> int | None:
    """The longest text in tokens for a model that has learned each position; None where they are computed.

    OPT and its kin keep two rows more than there are positions (transformers, OPTLearnedPositionalEmbedding).
    """
    from torch.nn import Embedding

    most = getattr(model.config, "max_position_embeddings", None)
    words = model.get_input_embeddings()
    learned = (part for part in model.modules() if isinstance(part, Embedding) and part is not words)
    sizes = [part.num_embeddings for part in learned]
    return most if any(size in (most, (most or 0) + 2) for size in sizes) else None


def _recomputing(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    base = tuned.get_base_model()
    if recipe["train"].get("activation_checkpointing") and not base.supports_gradient_checkpointing:
        message = f"'{base.config.model_type}' models cannot recompute activations; write false"
        yield recipe.problem(("train", "activation_checkpointing"), message)


def _merging_shared_embeddings(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    base = tuned.get_base_model()
    head = base.get_output_embeddings()
    words = getattr(base.get_input_embeddings(), "base_layer", None)
    if words is not None and head is not None and words.weight is head.weight:
        message = "a merge would change the output head, which shares the embeddings; leave them or it out"
        yield recipe.problem(("lora", "target_modules"), message)


def _merging_biases(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    from peft.tuners.lora import LoraLayer

    adapted = (part.get_base_layer() for part in tuned.modules() if isinstance(part, LoraLayer))
    if recipe["lora"].get("lora_bias") and any(getattr(part, "bias", None) is None for part in adapted):
        message = "cannot be merged into modules without a bias, as this model's; write false"
        yield recipe.problem(("lora", "lora_bias"), message)
