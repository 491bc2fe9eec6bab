"""Base models whose weights are quantized on disk: how they are loaded, trained and merged, or why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from loracook.errors import MachineError, Problem, quote
from loracook.machine.upstream import dequantizes
from loracook.model.own_code import BASE_MODEL
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from transformers.utils.quantization_config import QuantizationConfigMixin

BITSANDBYTES = {"load_in_4bit": "bitsandbytes_4bit", "load_in_8bit": "bitsandbytes_8bit"}
DESCRIBING = ("quant_method", "bits", "group_size", "modules_to_not_convert")
"""What says how large weights are that another method than bitsandbytes has packed."""
UNQUANTIZED = "name the unquantized base model"


def stored_quantization(config: PretrainedConfig) -> dict[str, Any]:
    """The `quantization_config` of a base model's config.json, {} where its weights are not quantized."""
    own = getattr(config, "quantization_config", None)
    found = own or getattr(config.get_text_config(), "quantization_config", None) or {}
    return dict(found if isinstance(found, Mapping) else found.to_dict())


def quantization_in_training(recipe: Recipe, config: PretrainedConfig) -> Mapping[str, Any]:
    """How the weights are quantized while training, in the words of a `quantization` section; {} for not.

    Other methods than bitsandbytes are described in the words of their configs.
    """
    stored = stored_quantization(config)
    if not stored or _dequantized_on_load(stored):
        section: Mapping[str, Any] = recipe.sections.get("quantization", {})
        return section
    if _method(stored) in BITSANDBYTES.values():
        return {key: value for key, value in stored.items() if value and not key.startswith("_")}
    return {"bits": 4} | {key: value for key, value in stored.items() if value and key in DESCRIBING}


def is_quantized(quantization: Mapping[str, Any]) -> bool:
    """Whether `quantization_in_training` has bitsandbytes quantize anything."""
    return any(quantization.get(key) for key in BITSANDBYTES)


def quantization_problems(recipe: Recipe, config: PretrainedConfig) -> Iterator[Problem]:
    """What a recipe asks of a base model whose weights are quantized on disk that cannot be done."""
    stored = stored_quantization(config)
    if not stored:
        return
    if not _is_known(stored):
        message = (
            f"its weights are stored as {_method(stored)}, which transformers cannot load; {UNQUANTIZED}"
        )
        yield recipe.problem(BASE_MODEL, message)
        return
    yield from _other_quantization(recipe, stored)
    if not _dequantized_on_load(stored) and not _is_trainable(stored):
        message = f"weights stored as {_method(stored)} cannot be trained; {UNQUANTIZED}"
        yield recipe.problem(BASE_MODEL, message)
    if "merge" in recipe:
        yield from _merge_problems(recipe, stored)


def quantization_notes(recipe: Recipe, config: PretrainedConfig) -> Iterator[str]:
    """What happens to weights that are quantized on disk, in sentences."""
    stored = stored_quantization(config)
    if not stored:
        return
    kind = _method(stored)
    if _dequantized_on_load(stored):
        yield f"the base model's {kind} weights are dequantized on loading, since {kind} cannot be trained"
    elif "merge" in recipe:
        yield f"the base model's weights are stored as {kind}; merge dequantizes them"
    try:
        check_loadable(config)
    except MachineError as error:
        yield str(error)


def check_loadable(config: PretrainedConfig) -> None:
    """Raise MachineError where this machine lacks what loading weights quantized on disk requires."""
    stored = stored_quantization(config)
    if not stored:
        return
    from transformers.quantizers.auto import AutoHfQuantizer

    try:
        quantizer = AutoHfQuantizer.from_config(_loaded_as(stored), pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
    except (ImportError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MachineError(f"the base model cannot be loaded here: {reason}") from error


def stored_settings(config: PretrainedConfig) -> dict[str, Any]:
    """What from_pretrained needs to be told to dequantize weights that train dequantized."""
    stored = stored_quantization(config)
    return {"quantization_config": _loaded_as(stored)} if stored and _dequantized_on_load(stored) else {}


def _loaded_as(stored: Mapping[str, Any]) -> QuantizationConfigMixin:
    from transformers.quantizers.auto import AutoQuantizationConfig

    dequantize = {"dequantize": True} if _dequantized_on_load(stored) else {}
    return AutoQuantizationConfig.from_dict({**stored, **dequantize})


def _method(stored: Mapping[str, Any]) -> str:
    """The name under which transformers knows a method of quantization."""
    named = (name for key, name in BITSANDBYTES.items() if stored.get(key))
    return next(named, str(stored.get("quant_method")))


def _is_known(stored: Mapping[str, Any]) -> bool:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    return _method(stored) in AUTO_QUANTIZATION_CONFIG_MAPPING


def _dequantized_on_load(stored: Mapping[str, Any]) -> bool:
    """Whether transformers can dequantize the weights as it reads them (MXFP4, FP8, compressed-tensors …).

    None of these methods trains quantized.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    settings = AUTO_QUANTIZATION_CONFIG_MAPPING.get(_method(stored))
    return settings is not None and "dequantize" in signature(settings).parameters


def _is_trainable(stored: Mapping[str, Any]) -> bool:
    """Whether transformers trains adapters on such weights; assumed where its package is not installed."""
    from transformers.quantizers.auto import AutoHfQuantizer

    try:
        return bool(AutoHfQuantizer.from_config(dict(stored), pre_quantized=True).is_trainable)
    except ImportError:
        return True


def _other_quantization(recipe: Recipe, stored: Mapping[str, Any]) -> Iterator[Problem]:
    """A `quantization` section that does not say what is stored: transformers would pass it over."""
    section = recipe.sections.get("quantization", {})
    if section and _method(stored) not in BITSANDBYTES.values():
        message = f"the base model's weights are stored as {_method(stored)} already; remove the section"
        yield recipe.problem(("quantization",), message)
        return
    for key, value in section.items():
        if value != stored.get(key):
            message = f"the base model's weights are stored with {quote(stored.get(key))}; write that instead"
            yield recipe.problem(("quantization", key), message)


def _merge_problems(recipe: Recipe, stored: Mapping[str, Any]) -> Iterator[Problem]:
    if not _dequantized_on_load(stored) and not dequantizes(_method(stored)):
        message = (
            f"weights stored as {_method(stored)} cannot be merged; remove 'merge:' and push the adapter, "
            f"or {UNQUANTIZED}"
        )
        yield recipe.problem(("merge",), message)
    elif recipe["merge"]["base"] == "original":
        message = f"the base model has no weights beside those stored as {_method(stored)}; write 'trained'"
        yield recipe.problem(("merge", "base"), message)
