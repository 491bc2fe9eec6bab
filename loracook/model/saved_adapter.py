"""The adapter and the tokenizer that training saved, read as a stranger's: their run folder may be one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import (
    LINE_LIMIT,
    TRAIN_AGAIN,
    DivergedError,
    MachineError,
    RecipeError,
    dotted,
    quote,
    shorten,
)  # fmt: skip
from loracook.model.adapter import lora_config
from loracook.model.contents import check_contents
from loracook.model.finite import not_finite
from loracook.model.load import fit_embeddings
from loracook.model.own_code import NO_CODE
from loracook.model.parameters import is_base
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import part_at
from loracook.recipe.schema_errors import check
from loracook.store.read_back import check_shape, read_json
from loracook.store.release import ADAPTER

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG, WEIGHTS = ADAPTER
NOT_COMPARED = {"auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "peft_version", "revision"}
"""Settings of where and with what an adapter was made; PEFT sets fan_in_fan_out by the kind of module."""
_AGAIN = "remove '{}' and run again"


def saved_tokenizer(recipe: Recipe, adapter: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that training saved beside an adapter.

    Raises:
        MachineError: its files lead elsewhere, as those of a stranger's run may.
    """
    from transformers import AutoTokenizer

    try:
        check_contents(recipe, adapter)
    except RecipeError as error:
        fault = error.problems[0].message
        raise MachineError(f"'{adapter}': {fault}; {_AGAIN.format(adapter.parent)}") from error
    return AutoTokenizer.from_pretrained(adapter, **NO_CODE)


def load_tuned(recipe: Recipe, model: PreTrainedModel, adapter: Path) -> PeftModel:
    """`model` with the adapter of a folder applied, its embeddings grown to the adapter's tokenizer.

    The recipe decides what the adapter is; the folder's config has to agree, and nothing in it is acted upon.

    Raises:
        MachineError: the folder holds another adapter than the recipe's.
        DivergedError: a weight of the adapter is not finite.
    """
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    fit_embeddings(model, len(saved_tokenizer(recipe, adapter)))
    try:
        saved = read_json(adapter / CONFIG, {"exclude_modules": list | None})
        check_shape(saved["exclude_modules"] or [], [str])
        config = lora_config(recipe)
        config.exclude_modules, config.inference_mode = saved["exclude_modules"], True
        tuned = get_peft_model(model, config)
        fault = _difference(tuned.peft_config["default"].to_dict(), saved)
        if fault is None and not weights_fit(tuned, adapter / WEIGHTS):
            fault = f"{WEIGHTS} does not fit the model"
    except (OSError, ValueError) as error:  # ValueError is also PEFT's, for a list that excludes everything
        logging.getLogger("loracook").exception("%s cannot be read", adapter)
        raise MachineError(f"'{adapter}' is no LoRA adapter; {_AGAIN.format(adapter.parent)}") from error
    if fault:
        raise MachineError(f"'{adapter}' is not the recipe's: {fault}; {_AGAIN.format(adapter.parent)}")
    _allocate(tuned)
    set_peft_model_state_dict(tuned, load_file(adapter / WEIGHTS), "default")
    own = (named for named in tuned.named_parameters() if not is_base(named[0]))
    if name := not_finite(own):
        raise DivergedError(f"the adapter's weight {name} holds NaN or infinity; {TRAIN_AGAIN}")
    return tuned.eval()


def _allocate(tuned: PeftModel) -> None:
    """Give the adapter's weights memory where those of the base model have none."""
    import torch

    for name, weight in list(tuned.named_parameters()):
        if weight.is_meta and not is_base(name):
            holder, _, key = name.rpartition(".")
            weight = torch.nn.Parameter(torch.empty_like(weight, device="cpu"), requires_grad=False)
            tuned.get_submodule(holder).register_parameter(key, weight)


def add_adapter(recipe: Recipe, tuned: PeftModel, name: str) -> None:
    """Load the adapter that `evaluate.adapters` calls by that name beside the recipe's own.

    Raises:
        RecipeError: its folder holds no LoRA adapter for this base model that a recipe could make.
        DivergedError: a weight of the adapter is not finite.
    """
    path = ("evaluate", "adapters", name)
    config_file, weights = other_adapter(recipe, name)
    try:
        tuned.add_adapter(name, _config_within_bounds(config_file))
        if not weights_fit(tuned, weights, name):
            raise ValueError("its weights do not fit this base model")
    except (OSError, ValueError, IndexError) as error:  # IndexError: PEFT's, for a token that is not there
        fault = f"no LoRA adapter that can be used here: {error}"
        raise RecipeError([recipe.problem(path, shorten(fault, LINE_LIMIT))]) from error
    tuned.load_adapter(weights.parent, name)
    own = ((key, value) for key, value in tuned.named_parameters() if f".{name}." in key)
    if key := not_finite(own):
        raise DivergedError(f"the weight {key} of the adapter '{name}' holds NaN or infinity; remove it")


def other_adapter(recipe: Recipe, name: str) -> tuple[Path, Path]:
    """Config and weights of an adapter of `evaluate.adapters`; raises RecipeError for files elsewhere."""
    path = ("evaluate", "adapters", name)
    folder = recipe["evaluate"]["adapters"][name]
    for file in ADAPTER:
        try:
            place = recipe.resolve(f"{folder}/{file}")
        except RecipeError as error:
            raise RecipeError([recipe.problem(path, error.problems[0].message)]) from error
        if not place.is_file():
            raise RecipeError([recipe.problem(path, f"has no {file}; name the folder of a LoRA adapter")])
    config, weights = (recipe.reach.folder / folder / file for file in ADAPTER)
    return config, weights


def _config_within_bounds(file: Path) -> LoraConfig:
    """A stranger's config of LoRA, within the bounds of a recipe's; raises ValueError for any other."""
    from peft import LoraConfig

    saved, part = read_json(file, {"peft_type": str}), part_at(("lora",)) or {}
    if saved["peft_type"] != "LORA":
        raise ValueError("it is of another kind")
    known = {key: saved[key] for key in part["properties"] if saved.get(key) not in (None, {}, [])}
    if fault := next(check(known, part, ()), None):
        raise ValueError(f"{dotted(fault.path)}: {fault.message}")
    own = LoraConfig(**{"task_type": "CAUSAL_LM", **known})
    if strange := next((key for key in saved if key not in known and _decides(key, saved, own)), None):
        raise ValueError(f"{quote(strange)} is not supported")
    return own


def _decides(key: str, saved: Mapping[str, Any], own: LoraConfig) -> bool:
    """Whether a setting changes what an adapter computes, and is not the default."""
    if key in NOT_COMPARED | {"inference_mode", "task_type", "peft_type"} or not hasattr(own, key):
        return False
    return bool(saved[key]) and _unordered(getattr(own, key)) != _unordered(saved[key])


def weights_fit(tuned: PeftModel, file: Path, adapter: str = "default") -> bool:
    """Whether a file holds the weights of a model's adapter: all of them, in their shapes, and nothing else.

    Raises:
        ValueError: it is no safetensors file.
    """
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    least, most = (
        get_peft_model_state_dict(tuned, adapter_name=adapter, save_embedding_layers=embeddings)
        for embeddings in (False, True)
    )
    try:
        with safe_open(file, "pt") as saved:
            names = set(saved.keys())
            shapes = {name: saved.get_slice(name).get_shape() for name in names}
            # The embeddings are the base model's, for all adapters on it: those of another must be the same.
            others = names - set(least) if adapter != "default" else ()
            same = all(name in most and _same(most[name], saved.get_tensor(name)) for name in others)
    except SafetensorError as error:
        raise ValueError(f"{file}: {error}") from error
    return (
        same
        and set(least) <= names
        and all(name in most and list(most[name].shape) == shape for name, shape in shapes.items())
    )


def _same(ours: Tensor, saved: Tensor) -> bool:
    """Whether two tensors are equal in the narrower of their dtypes."""
    if ours.shape != saved.shape:
        return False
    narrower = min(ours.dtype, saved.dtype, key=lambda dtype: dtype.itemsize)
    return bool((ours.to(narrower).cpu() == saved.to(narrower).cpu()).all())


def _difference(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> str | None:
    """The first setting that two configs of LoRA have both, with different values."""
    for key in sorted((ours.keys() & saved.keys()) - NOT_COMPARED):
        if _unordered(ours[key]) != _unordered(saved[key]):
            return f"its {CONFIG} has another {key}"
    return None


def _unordered(value: Any) -> Any:
    """A value that lists equal, whatever their order: PEFT keeps module names in sets."""
    return sorted(map(str, value)) if isinstance(value, list | set | tuple) else value
