"""The base model, loaded as the recipe says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import MachineError, RecipeError
from loracook.machine import upstream
from loracook.model.broken_files import reading
from loracook.model.finite import not_finite
from loracook.model.generation_config import generation_settings
from loracook.model.own_code import BASE_MODEL, REFUSED, own_code
from loracook.model.quantized import stored_quantization, stored_settings
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_config(recipe: Recipe, folder: Path) -> PretrainedConfig:
    """The config of the base model in `folder`.

    Raises:
        RecipeError: it cannot be read, or is not of a causal language model (encoders, vision …).
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    with reading(recipe, folder, "its config.json"):
        try:
            config = AutoConfig.from_pretrained(folder, **own_code(recipe))
        except ValueError as error:
            if REFUSED in str(error):
                raise
            message = "the installed transformers does not know this model type; install a newer one"
            raise RecipeError([recipe.problem(BASE_MODEL, message)]) from error
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or (recipe.own_code and _has_causal_code(config))
    causal = known and not _attends_both_ways(config)
    if config.is_encoder_decoder or not causal:
        kind = "an encoder-decoder" if config.is_encoder_decoder else "not a causal language model"
        message = f"'{config.model_type}' is {kind}; loracook trains causal language models"
        raise RecipeError([recipe.problem(BASE_MODEL, message)])
    upstream.choose_implementations(config, recipe["base_model"].get("attn_implementation"))
    return config


def _has_causal_code(config: PretrainedConfig) -> bool:
    """Whether a model's own code has its causal language model."""
    return "AutoModelForCausalLM" in getattr(config, "auto_map", {})


def _attends_both_ways(config: PretrainedConfig) -> bool:
    """Whether tokens attend to later ones, as in encoders without is_decoder: the loss would leak."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and getattr(config, "is_decoder", None) is False


def load_model(recipe: Recipe, folder: Path, dtype: str | None = None, **place: Any) -> PreTrainedModel:
    """The base model on this machine's device, quantized where the recipe says so; in its dtype or another.

    `place` is for accelerate, where it is to be elsewhere.

    Raises:
        RecipeError: its weights cannot be read, or do not match its config.
        MachineError: the recipe's quantization or attention cannot run here.
    """
    dtype = dtype or recipe["base_model"]["dtype"]
    settings = _quantization(recipe, load_config(recipe, folder))
    base = _load(recipe, folder, dtype=dtype, **settings, **place)
    if getattr(base, "is_loaded_in_4bit", False):
        _keep_trainable(base)
    return base


def load_on_meta(recipe: Recipe, folder: Path) -> PreTrainedModel:
    """The base model's modules on torch's meta device, without memory for weights."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"), reading(recipe, folder, "its config.json"):
            base = AutoModelForCausalLM.from_config(load_config(recipe, folder), **own_code(recipe))
            if not any(tensor.numel() for tensor in base.parameters()):
                raise ValueError("its model has no parameters")
            return base
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        flash = "flash" in recipe["base_model"].get("attn_implementation", "")
        advice = "; write attn_implementation: sdpa" if flash else ""
        raise MachineError(f"the base model cannot be built here: {reason}{advice}") from error


def load_unquantized(recipe: Recipe, folder: Path, dtype: str, **place: Any) -> PreTrainedModel:
    """The base model in unquantized weights of `dtype`, as a merge needs them; `place` is for accelerate."""
    return _load(recipe, folder, dtype=dtype, **stored_settings(load_config(recipe, folder)), **place)


def fit_embeddings(model: PreTrainedModel, vocabulary: int) -> int:
    """Grow the model's embeddings to at least `vocabulary` rows; gives the number of rows added.

    New rows are drawn around the mean of the old ones with a fixed seed, so that every load gives the same.
    """
    import torch

    before = int(model.get_input_embeddings().weight.shape[0])
    if vocabulary <= before:
        return 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.resize_token_embeddings(vocabulary)
    return vocabulary - before


def has_accelerator() -> bool:
    """Whether this machine has a GPU (or another accelerator) that torch can use."""
    import torch

    return bool(torch.accelerator.is_available())


def _load(recipe: Recipe, folder: Path, **settings: Any) -> PreTrainedModel:
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    # One whole copy on each process's own device: training shards nothing by layer.
    settings.setdefault("device_map", {"": PartialState().device} if has_accelerator() else None)
    try:
        with reading(recipe, folder, "its weights", RuntimeError):  # torch's, of a device
            loaded, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=load_config(recipe, folder),
                use_safetensors=True,
                **own_code(recipe),
                generation_config=generation_settings(folder).config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                **settings,
            )
    except ImportError as error:
        raise MachineError(f"the base model cannot be loaded here: {str(error).splitlines()[0]}") from error
    _refuse(recipe, report["missing_keys"], "weights are missing")
    _refuse(recipe, (name for name, *_ in report["mismatched_keys"]), "weights have the wrong shape")
    if name := not_finite(loaded.named_parameters()):
        message = (
            f"its weight {name} holds NaN or infinity as {loaded.dtype}; use a wider dtype or another model"
        )
        raise RecipeError([recipe.problem(BASE_MODEL, message)])
    return loaded


def _refuse(recipe: Recipe, parameters: Iterable[str], fault: str) -> None:
    """Raise RecipeError when there are parameters that upstream would initialize at random."""
    if names := sorted(parameters):
        message = f"{fault} for {len(names)} parameters, such as {names[0]}; name a complete model"
        raise RecipeError([recipe.problem(BASE_MODEL, message)])


def _keep_trainable(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU with AVX512-BF16.

    The packed layout has no backward pass: training after an evaluation fails or, in layers without a bias,
    passes no gradient on. Source: bitsandbytes 0.50.2, nn.Linear4bit.forward and autograd.matmul_4bit.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _quantization(recipe: Recipe, config: PretrainedConfig) -> dict[str, Any]:
    if "quantization" not in recipe or stored_quantization(config):
        return stored_settings(config)
    from transformers import BitsAndBytesConfig

    section = dict(recipe["quantization"])
    if "llm_int8_threshold" in section:  # upstream refuses a whole number there
        section["llm_int8_threshold"] = float(section["llm_int8_threshold"])
    return {"quantization_config": BitsAndBytesConfig(**section)}
