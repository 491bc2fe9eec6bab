"""What a recipe asks of its model that the model cannot do, known before weights are downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loracook.errors import Problem, RecipeError
from loracook.model.router_loss import router_loss_problems
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def unsupported(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    """The problems of a recipe with its model, which is on the meta device with the adapter applied."""
    yield from _without_decoder(tuned, recipe)
    yield from _checkpointing(tuned, recipe)
    yield from router_loss_problems(tuned.get_base_model(), recipe)
    yield from _trained_tokens_of_tied_head(tuned, recipe)
    yield from _answers_beyond_positions(tuned, recipe)
    if "merge" in recipe:
        yield from _merged_tied_embeddings(tuned, recipe)
        yield from _merged_biases(tuned, recipe)


def check_rows(base: PreTrainedModel, recipe: Recipe, longest: int) -> None:
    """Raise RecipeError where the longest row, in tokens, exceeds the model's positions."""
    positions = _positions(base)
    if positions is not None and longest > positions:
        message = (
            f"a row has {longest} tokens, more than this model's {positions} positions; write {positions}"
        )
        raise RecipeError([recipe.problem(("train", "max_length"), message)])


def check_prompts(base: PreTrainedModel, recipe: Recipe, longest: int) -> None:
    """Raise RecipeError where the longest prompt, in tokens, and its answer exceed the model's positions."""
    positions, new_tokens = most_positions(base), recipe["evaluate"]["generation"]["max_new_tokens"]
    if positions is not None and longest + new_tokens > positions:
        message = f"a prompt has {longest} tokens and this model has {positions} positions"
        path = ("evaluate", "generation", "max_new_tokens")
        raise RecipeError([recipe.problem(path, f"{message}; write {max(positions - longest, 1)} or less")])


def _answers_beyond_positions(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    positions = most_positions(tuned.get_base_model())
    generation = recipe.sections.get("evaluate", {}).get("generation", {})
    if positions is not None and generation.get("max_new_tokens", 0) >= positions:
        message = f"this model has {positions} positions for a prompt and its answer; write {positions // 2}"
        yield recipe.problem(("evaluate", "generation", "max_new_tokens"), message)


def most_positions(base: Any) -> int | None:
    """The longest text that the model is made for; None where nothing bounds it."""
    most: int | None = getattr(base.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return most


def _positions(base: PreTrainedModel) -> int | None:
    """The longest text in tokens for a model with a table of positions; None for one without.

    OPT and its kin keep two rows more than there are positions (transformers, OPTLearnedPositionalEmbedding).
    """
    from torch.nn import Embedding

    most = most_positions(base)
    words = base.get_input_embeddings()
    learned = [part.weight for part in base.modules() if isinstance(part, Embedding) and part is not words]
    tables = (*learned, *base.buffers())  # some, as gptj, keep computed positions in a table
    return most if any(table.shape[:1] in ((most,), ((most or 0) + 2,)) for table in tables) else None


def _without_decoder(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    """The problem of a model that hides its decoder, whose hidden states TRL computes the loss from."""
    base = tuned.get_base_model()
    if base.base_model is base:
        message = f"TRL cannot train '{base.config.model_type}' models: they name no base model of their own"
        yield recipe.problem(("base_model", "name_or_path"), message)


def _checkpointing(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    base = tuned.get_base_model()
    if recipe["train"].get("activation_checkpointing") and not base.supports_gradient_checkpointing:
        message = f"'{base.config.model_type}' models do not support it; write false"
        yield recipe.problem(("train", "activation_checkpointing"), message)


def _trained_tokens_of_tied_head(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    base = tuned.get_base_model()
    if (
        "trainable_token_indices" in recipe["lora"]
        and base.config.get_text_config(decoder=True).tie_word_embeddings
    ):
        message = "TRL cannot train single tokens of embeddings tied to the head; write modules_to_save"
        yield recipe.problem(("lora", "trainable_token_indices"), message)


def _merged_tied_embeddings(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    base = tuned.get_base_model()
    head = base.get_output_embeddings()
    words = getattr(base.get_input_embeddings(), "base_layer", None)
    if words is not None and head is not None and words.weight is head.weight:
        message = (
            "merging would change the output head too, which is tied to these embeddings; "
            "remove them here, or remove 'merge:'"
        )
        yield recipe.problem(("lora", "target_modules"), message)


def _merged_biases(tuned: PeftModel, recipe: Recipe) -> Iterator[Problem]:
    from peft.tuners.lora import LoraLayer

    adapted = (part.get_base_layer() for part in tuned.modules() if isinstance(part, LoraLayer))
    if recipe["lora"].get("lora_bias") and any(getattr(part, "bias", None) is None for part in adapted):
        message = "cannot be merged, since modules of this model have no bias; write false"
        yield recipe.problem(("lora", "lora_bias"), message)
