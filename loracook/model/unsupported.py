"""What a recipe asks of its model that the model cannot do, known before weights are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loracook.errors import Problem, RecipeError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from loracook.recipe.recipe import Recipe


def refused(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    """The problems of a recipe with its model, which is on the meta device with the adapter on it."""
    yield from _recomputing(tuned, recipe)
    yield from _training_shared_tokens(tuned, recipe)
    if "merge" in recipe:
        yield from _merging_shared_embeddings(tuned, recipe)
        yield from _merging_biases(tuned, recipe)


def check_rows(base: PreTrainedModel, recipe: Recipe, longest: int) -> None:
    """Raise RecipeError where the longest row, in tokens, has more than a model has positions for."""
    most = _most_positions(base)
    if most is not None and longest > most:
        message = f"a row has {longest} tokens and this model reads {most} at most; write {most}"
        raise RecipeError([recipe.problem(("train", "max_length"), message)])


def check_prompts(base: PreTrainedModel, recipe: Recipe, longest: int) -> None:
    """Raise RecipeError where the longest prompt, in tokens, and its answer have more than that."""
    most, path = _most_positions(base), ("evaluate", "generation", "max_new_tokens")
    if most is not None and longest + recipe["evaluate"]["generation"]["max_new_tokens"] > most:
        message = f"a prompt has {longest} tokens and this model reads {most} at most"
        raise RecipeError([recipe.problem(path, f"{message}; write {max(most - longest, 1)} or fewer")])


def _most_positions(base: PreTrainedModel) -> int | None:
    """The longest text in tokens for a model with a table of positions; None where they have no end.

    OPT and its kin keep two rows more than there are positions (transformers, OPTLearnedPositionalEmbedding).
    """
    from torch.nn import Embedding

    most: int | None = getattr(base.config, "max_position_embeddings", None)
    words = base.get_input_embeddings()
    learned = [part.weight for part in base.modules() if isinstance(part, Embedding) and part is not words]
    tables = (*learned, *base.buffers())  # some, as gptj, keep computed positions in a table
    return most if any(table.shape[:1] in ((most,), ((most or 0) + 2,)) for table in tables) else None


def _recomputing(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    base = tuned.get_base_model()
    if recipe["train"].get("activation_checkpointing") and not base.supports_gradient_checkpointing:
        message = f"'{base.config.model_type}' models cannot recompute activations; write false"
        yield recipe.problem(("train", "activation_checkpointing"), message)


def _training_shared_tokens(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    base = tuned.get_base_model()
    if "trainable_token_indices" in recipe["lora"] and base.config.get_text_config().tie_word_embeddings:
        message = "the output head shares the embeddings, which TRL cannot train so; write modules_to_save"
        yield recipe.problem(("lora", "trainable_token_indices"), message)


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
