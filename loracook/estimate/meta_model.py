"""A recipe's model as it will be trained, built from its config alone, on torch's meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import RecipeError
from loracook.estimate.weight_bytes import Weights, cast, set_dtypes, weigh
from loracook.model.adapter import check_modules, lora_config
from loracook.model.load import load_tokenizer, skeleton
from loracook.model.parameters import Counts, adapted, counted, grow
from loracook.model.unsupported import refused

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
"""Files of which one at least is there when a folder holds a tokenizer."""


@dataclass(frozen=True)
class Blueprint:
    """The adapted model without memory, its counts, and what its base takes once loaded.

    `base_parameters` are those of the base model before tokens are added.
    """

    tuned: PeftModel
    counts: Counts
    weights: Weights
    base_parameters: int
    dtype: torch.dtype
    added_tokens: int

    @property
    def base(self) -> PreTrainedModel:
        """The base model, its modules adapted."""
        return self.tuned.get_base_model()

    @property
    def config(self) -> PretrainedConfig:
        """The base model's config."""
        return self.base.config


def blueprint(recipe: Recipe, folder: Path, vocabulary: int | None) -> Blueprint:
    """The model of a recipe, from the config.json in `folder`.

    Args:
        recipe: says quantization, dtype and adapter.
        folder: what `fetch_description` gave.
        vocabulary: the tokenizer's size, None where it is not known: then every token of the recipe's
            `tokenizer` section counts as new.

    Raises:
        RecipeError: the model is no causal language model, or cannot do what the recipe asks of it.
    """
    base = skeleton(recipe, folder)
    check_modules(base, recipe)
    quantization = recipe.sections.get("quantization", {})
    dtype = dtype_of(recipe["base_model"]["dtype"], base.config)
    plain = sum(part.numel() for part in base.parameters())
    rows = int(base.get_input_embeddings().weight.shape[0])
    added = grow(base, rows + len(named_tokens(recipe)) if vocabulary is None else vocabulary)
    cast(base, dtype)
    weights = weigh(base, quantization)
    tuned = _adapted(base, recipe)
    set_dtypes(tuned, quantized=_is_quantized(quantization))
    if problems := list(refused(tuned, recipe)):
        raise RecipeError(problems)
    return Blueprint(tuned, counted(tuned), weights, plain, dtype, added)


def _adapted(base: PreTrainedModel, recipe: Recipe) -> PeftModel:
    try:
        return adapted(base, lora_config(recipe))
    except (ValueError, TypeError, IndexError, NotImplementedError, RuntimeError) as error:
        said = " ".join(str(error).split())
        write = "" if "target_modules" in recipe["lora"] else "; write target_modules: all-linear"
        raise RecipeError([recipe.problem(("lora",), f"PEFT refuses it{write}: {said}")]) from error


def tokenizer_in(recipe: Recipe, folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a base model's folder, or None where there is none."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None
    return load_tokenizer(recipe, folder)


def named_tokens(recipe: Recipe) -> set[str]:
    """The tokens that a recipe's `tokenizer` section names."""
    section = recipe.sections.get("tokenizer", {})
    alone = {section[key] for key in ("pad_token", "eos_token") if key in section}
    return alone | set(section.get("extra_special_tokens", []))


def dtype_of(name: str, config: PretrainedConfig) -> torch.dtype:
    """The dtype that a recipe's word for it means for a model."""
    import torch

    found = (getattr(config, "dtype", None) or torch.float32) if name == "auto" else getattr(torch, name)
    dtype: torch.dtype = getattr(torch, found) if isinstance(found, str) else found
    return dtype


def _is_quantized(quantization: Mapping[str, Any]) -> bool:
    return bool(quantization.get("load_in_4bit") or quantization.get("load_in_8bit"))
