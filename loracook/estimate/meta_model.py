"""A recipe's model as it will be trained, built from its config alone, on torch's meta device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import model
from loracook.errors import RecipeError
from loracook.estimate.weight_bytes import Weights, cast, set_dtypes, weight_bytes
from loracook.model.parameters import (
    ParameterCounts,
    RejectedError,
    WeightGroup,
    counts_of,
    grow_embeddings,
    unadapted_weights,
    with_adapter,
)
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class MetaModel:
    """The adapted model without memory, its parameter counts, and the bytes of its base once loaded.

    `lora_config` makes the adapter, `left_out` counts modules that it leaves out by part of the model, and
    `unadapted` has the weights that are not trained. `folder` holds its config; `vocabulary` is the
    tokenizer's size, None where it is unknown; `base_parameters` are those before tokens are added;
    `quantization` is how its weights are quantized while training; `whole_merge` says why merging takes the
    whole model, where it does not go weight by weight; `notes` say what is done to its files
    beyond the recipe.
    """

    folder: Path
    vocabulary: int | None
    tuned: PeftModel
    lora_config: LoraConfig
    left_out: Mapping[str, int]
    unadapted: Sequence[WeightGroup]
    counts: ParameterCounts
    weights: Weights
    base_parameters: int
    dtype: torch.dtype
    added_tokens: int
    quantization: Mapping[str, Any]
    whole_merge: str | None
    notes: tuple[str, ...]

    def noting(self, notes: Sequence[str]) -> MetaModel:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    @property
    def base(self) -> PreTrainedModel:
        """The base model, its modules adapted."""
        return self.tuned.get_base_model()

    @property
    def config(self) -> PretrainedConfig:
        """The base model's config."""
        return self.base.config

    @property
    def drops_units(self) -> bool:
        """Whether units are dropped at random while training."""
        from torch.nn import Dropout

        rates = (rate for name, rate in self.config.to_dict().items() if "dropout" in name or "pdrop" in name)
        dropouts = (module.p for module in self.tuned.modules() if isinstance(module, Dropout))
        return any(isinstance(rate, int | float) and rate > 0 for rate in (*rates, *dropouts))

    def serving(self, recipe: Recipe) -> tuple[model.Serving, ...]:
        """What loads the adapter as it will be saved."""
        return model.adapter_serving(recipe, self.tuned, new_rows=self.added_tokens > 0)


def meta_model(recipe: Recipe, folder: Path, vocabulary: int | None) -> MetaModel:
    """The model of a recipe, from the config.json in `folder`.

    Args:
        recipe: says quantization, dtype and adapter.
        folder: what `model.fetch_description` gave.
        vocabulary: the tokenizer's size; with None, every token of the recipe's `tokenizer` section counts
            as new.

    Raises:
        RecipeError: the model is no causal language model, or cannot do what the recipe asks of it.
    """
    base = model.load_on_meta(recipe, folder)
    if problems := list(model.quantization_problems(recipe, base.config)):
        raise RecipeError(problems)
    with model.on_its_base(recipe):
        model.check_modules(base, recipe)
    quantization = model.quantization_in_training(recipe, base.config)
    dtype = _dtype(recipe["base_model"]["dtype"], base.config)
    base_parameters = sum(tensor.numel() for tensor in base.parameters())
    rows = int(base.get_input_embeddings().weight.shape[0])
    added = grow_embeddings(base, rows + len(named_tokens(recipe)) if vocabulary is None else vocabulary)
    cast(base, dtype)
    weights = weight_bytes(base, quantization)
    left_out = model.left_out(base, recipe["lora"].get("target_modules"))
    parts, lora_config = Counter(left_out.values()), model.lora_config(recipe, list(left_out))
    with model.on_its_base(recipe):
        tuned = _adapted(base, lora_config, recipe)
    model.check_start(recipe, tuned)
    set_dtypes(tuned, quantized=model.is_quantized(quantization))
    if recipe["train"].get("fp16"):
        model.train_in_float32(tuned)
    if problems := list(model.unsupported(tuned, recipe)):
        raise RecipeError(problems)
    whole_merge = None
    if "merge" in recipe:
        merged = model.try_merge(recipe, folder, tuned)
        whole_merge = model.whole_merge_reason(recipe, folder, tuned=tuned, merged=merged)
    return MetaModel(
        folder=folder,
        vocabulary=vocabulary,
        tuned=tuned,
        lora_config=lora_config,
        left_out=parts,
        unadapted=unadapted_weights(tuned, parts),
        counts=counts_of(tuned),
        weights=weights,
        base_parameters=base_parameters,
        dtype=dtype,
        added_tokens=added,
        quantization=quantization,
        whole_merge=whole_merge,
        notes=(*_notes(recipe, folder, base.config), *_new_rows(base, added), *_whole_merge(whole_merge)),
    )


def named_tokens(recipe: Recipe) -> set[str]:
    """The special tokens that a recipe's `tokenizer` section names."""
    section = recipe.sections.get("tokenizer", {})
    single = {section[key] for key in ("pad_token", "eos_token") if key in section}
    return single | set(section.get("extra_special_tokens", []))


def _adapted(base: PreTrainedModel, lora_config: LoraConfig, recipe: Recipe) -> PeftModel:
    try:
        return with_adapter(base, deepcopy(lora_config))  # which PEFT changes
    except RejectedError as error:
        advice = "" if "target_modules" in recipe["lora"] else "; write target_modules: all-linear"
        problem = recipe.problem(("lora",), f"PEFT rejects this adapter{advice}: {error}")
        raise RecipeError([problem]) from error


def _dtype(name: str, config: PretrainedConfig) -> torch.dtype:
    """The torch dtype that a recipe's `dtype` means for a model."""
    import torch

    own = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
    value = (own or torch.float32) if name == "auto" else getattr(torch, name)
    dtype: torch.dtype = getattr(torch, value) if isinstance(value, str) else value
    return dtype


def _notes(recipe: Recipe, folder: Path, config: PretrainedConfig) -> Iterator[str]:
    if unused := model.unused_keys(recipe, folder):
        yield f"not used from the model's config.json: {', '.join(unused)}"
    yield from model.quantization_notes(recipe, config)
    if "merge" in recipe and (note := model.generation_settings(folder).note):
        yield note


def _whole_merge(reason: str | None) -> Iterator[str]:
    if reason:
        yield f"merge holds the whole model in memory: {reason}"


def _new_rows(adapted: PreTrainedModel, added: int) -> Iterator[str]:
    """Say that embeddings grow, and how to train the new rows where the adapter leaves them as they are."""
    if added:
        rows = f"{added} embedding row{'s' * (added != 1)} added for new tokens"
        trained = any(tensor.requires_grad for tensor in adapted.get_input_embeddings().parameters())
        yield (
            rows if trained else f"{rows}; lora.modules_to_save would train {'them' if added != 1 else 'it'}"
        )
