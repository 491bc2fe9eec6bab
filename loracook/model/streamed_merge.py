"""The adapter merged into a base model weight by weight, from its files into new ones, never loaded whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loracook.errors import TRAIN_AGAIN, LoracookError
from loracook.machine.upstream import saved_names, saved_weights
from loracook.model.adapted_modules import (
    adapted_modules,
    embeddings,
    lacks_numbers,
    merge_into_base,
    set_parameter,
    untie,
)
from loracook.model.base_weights import BaseWeights, Weight, open_weights
from loracook.model.finite import not_finite
from loracook.model.generation_config import generation_settings
from loracook.model.load import load_config, load_on_meta
from loracook.model.merging import computes_with_weights, trains_quantized
from loracook.model.own_code import own_code
from loracook.model.quantized import stored_quantization
from loracook.model.safetensors_file import write_safetensors
from loracook.model.saved_adapter import WEIGHTS, load_tuned
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel


class NotStreamedError(LoracookError):
    """A merge that needs the whole model in memory; the message says why."""


@dataclass(frozen=True)
class Stored:
    """The base model's weights in its files, by the names of its parameters."""

    weights: BaseWeights
    names: Mapping[str, str]
    """The names in the files."""

    def find(self, name: str) -> Weight | None:
        """The weight that a parameter is stored as, whole; None where it is not."""
        return self.weights.find(self.names[name]) if name in self.names else None


@dataclass(frozen=True)
class StreamedMerge:
    """A model whose weights are on torch's meta device, and what is needed to write it merged."""

    model: PreTrainedModel
    """The base model without the adapter's modules."""
    adapted: Mapping[str, Module]
    """The adapter's modules that are still to be merged, by the names of those they are in place of."""
    weights: Mapping[str, Tensor]
    """Every weight to write, by its name in the file: a real one, or one that says shape and dtype alone."""
    stored: Stored

    def save(self, folder: Path, max_shard_size: str = "50GB") -> None:
        """Write weights, config and generation settings as `save_pretrained` does.

        Raises:
            LoracookError: a merged weight holds NaN or infinity.
        """
        from huggingface_hub import split_torch_state_dict_into_shards

        folder.mkdir(parents=True)
        shards = split_torch_state_dict_into_shards(dict(self.weights), max_shard_size=max_shard_size)
        numbers = self._numbers(name for members in shards.filename_to_tensors.values() for name in members)
        for file, members in shards.filename_to_tensors.items():
            outlines = {name: self.weights[name] for name in members}
            write_safetensors(folder / file, outlines, (next(numbers) for _ in members))
        if shards.is_sharded:
            index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        self.model.generation_config.save_pretrained(folder)

    def _numbers(self, names: Iterable[str]) -> Iterator[Tensor]:
        """The weights of these names as they are to be written."""
        modules = {self.stored.names[name]: key for key in self.adapted for name in self._parameters(key)}
        merged: dict[str, Tensor] = {}
        for name in names:
            weight = self.weights[name]
            if weight.is_meta and name in modules and name not in merged:
                merged |= self._merged(modules[name])
            if weight.is_meta:
                weight = merged.pop(name) if name in merged else self._copied(name)
            if not_finite([(name, weight)]):
                held = f"the merged weight {name} holds NaN or infinity as {weight.dtype}"
                raise LoracookError(f"{held}; write merge.dtype: float32, or {TRAIN_AGAIN}")
            yield weight

    def _parameters(self, key: str) -> Iterator[str]:
        """The names of the parameters of an adapted module."""
        return (name for name, _ in self.model.get_submodule(key).named_parameters(key))

    def _copied(self, name: str) -> Tensor:
        """A weight that the adapter does not change, in the dtype of the merge."""
        found = self.stored.weights.find(name)
        if found is None:
            raise NotStreamedError(f"its files have no {name}")
        return found.read().to(self.weights[name].dtype)

    def _merged(self, key: str) -> dict[str, Tensor]:
        """The merged weights of an adapted module, by their names in the file."""
        base = self.model.get_submodule(key)
        outlines = dict(base.named_parameters())
        _read_parameters(base, key, self.stored)
        merge_into_base(self.adapted[key])
        merged = {self.stored.names[name]: weight.detach() for name, weight in base.named_parameters(key)}
        for name, outline in outlines.items():
            set_parameter(base, name, outline)
        return merged

    def check(self) -> None:
        """Raise NotStreamedError where a weight is not in the base model's files as it is to be written."""
        for name, weight in self.weights.items():
            found = self.stored.weights.find(name) if weight.is_meta else None
            if weight.is_meta and (found is None or found.shape != weight.shape or found.quantized):
                raise NotStreamedError(f"the base model's files hold {name} in another form")
        for name in (name for key in self.adapted for name in self._parameters(key)):
            if self.stored.names.get(name) not in self.weights:
                raise NotStreamedError(f"the base model's files hold {name} in parts")


def streamed_merge(recipe: Recipe, folder: Path, adapter: Path, *, dtype: str) -> StreamedMerge:
    """The merge of a trained adapter into the base model in `folder`, in `dtype`, ready to be saved.

    Raises:
        NotStreamedError: it cannot be done weight by weight.
    """
    if reason := needs_whole_model(recipe, folder):
        raise NotStreamedError(reason)
    weights = open_weights(folder)
    base = _without_weights(recipe, folder, weights, dtype=dtype)
    stored = Stored(weights, saved_names(base))
    if _changes_embeddings(base, adapter):
        _read_embeddings(base, stored)
    tuned = load_tuned(recipe, base, adapter)
    adapted = dict(adapted_modules(tuned.get_base_model()))
    for key in [key for key, module in adapted.items() if not lacks_numbers(module)]:
        merge_into_base(adapted.pop(key))
    plain = tuned.unload()
    untie(plain)
    merge = StreamedMerge(plain, adapted, saved_weights(plain), stored)
    merge.check()
    return merge


def whole_merge_reason(
    recipe: Recipe, folder: Path, *, tuned: PeftModel, merged: PreTrainedModel | None
) -> str | None:
    """Why merging takes the whole model of which these are outlines; None where it goes weight by weight."""
    if reason := needs_whole_model(recipe, folder):
        return reason
    if merged is not None:
        names = saved_names(merged)
        for key, _ in adapted_modules(tuned.get_base_model()):
            own = (name for name, _ in merged.get_submodule(key).named_parameters(key))
            if parts := [name for name in own if name not in names]:
                return f"the base model's files hold {parts[0]} in parts"
    return "PEFT computes with whole weights" if computes_with_weights(recipe) else None


def needs_whole_model(recipe: Recipe, folder: Path) -> str | None:
    """Why a merge into the base model in `folder` cannot go weight by weight, whatever the adapter holds."""
    if recipe.own_code:
        return "its model has code of its own"
    if stored_quantization(load_config(recipe, folder)):
        return "the base model's weights are stored quantized"
    if recipe["merge"]["base"] == "trained" and trains_quantized(recipe, folder):
        return "the base model is quantized while training; merge.base: original takes less memory"
    if recipe["lora"].get("init_lora_weights") == "mica":
        return "mica computes with whole weights"
    return None


def _without_weights(recipe: Recipe, folder: Path, weights: BaseWeights, *, dtype: str) -> PreTrainedModel:
    """The base model on the meta device, as `from_pretrained` would load it in `dtype`."""
    outlined = load_on_meta(recipe, folder)
    base: PreTrainedModel = type(outlined).from_pretrained(
        None,
        config=outlined.config,
        state_dict={weight.name: weight.outline() for weight in weights},
        device_map="meta",
        dtype=dtype,
        generation_config=generation_settings(folder).config,
        **own_code(recipe),
    )
    return base


def _changes_embeddings(base: PreTrainedModel, adapter: Path) -> bool:
    """Whether an adapter has weights for the embeddings or the output layer, as with added tokens."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / WEIGHTS, "pt") as saved:
            names = tuple(saved.keys())
    except (OSError, SafetensorError):  # load_tuned says what is wrong with it
        return False
    return any(f".{module}." in name for module, _ in embeddings(base) for name in names)


def _read_embeddings(base: PreTrainedModel, stored: Stored) -> None:
    """Give the embeddings their numbers, of which PEFT compares those that may be tied."""
    for name, module in embeddings(base):
        _read_parameters(module, name, stored)
    base.tie_weights()


def _read_parameters(module: Module, name: str, stored: Stored) -> None:
    """Replace a module's parameters on the meta device by those that the files have."""
    for key, outline in list(module.named_parameters()):
        if outline.is_meta and (found := stored.find(f"{name}.{key}")):
            set_parameter(module, key, found.read().to(outline.dtype))
