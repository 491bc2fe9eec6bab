"""The base model that an adapter is merged into, and the merge tried before training, without weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError, RecipeError, shorten
from loracook.machine.memory import available, give_back
from loracook.machine.upstream import forget_quantized_file, saved_weights
from loracook.model.broken_files import LIMIT
from loracook.model.finite import not_finite
from loracook.model.generation_config import generation_settings
from loracook.model.load import load_config, load_model, load_on_meta, load_unquantized
from loracook.model.own_code import own_code
from loracook.model.own_tokenizer import tokenized
from loracook.model.quantized import is_quantized, quantization_in_training
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MERGE = ("merge",)
PUSH_THE_ADAPTER = "remove 'merge:' and push the adapter"
FILLED = 0.8
"""How much of free memory weights may take; the rest is for computing with them."""
MERGE_AGAIN = "remove its folder and run again"
PROBES = (
    "The capital of France is",
    "def fibonacci(n):",
    "Dear customer, thank you for",
    "3, 5, 7, 11,",
    "Once upon a time",
)
"""Texts that models and tokenizers are compared on."""


def trains_quantized(recipe: Recipe, folder: Path) -> bool:
    """Whether the weights of the base model are quantized while training."""
    return is_quantized(quantization_in_training(recipe, load_config(recipe, folder)))


def where_it_fits(recipe: Recipe, folder: Path, *, dtype: str, spare: Path) -> dict[str, Any]:
    """Arguments of from_pretrained that leave on the disk what the device and the memory cannot hold.

    {} where the whole model fits its device, or PEFT computes with whole weights. `spare` is a folder.
    """
    import torch
    from accelerate import PartialState

    give_back()
    base = load_on_meta(recipe, folder)
    itemsize = (base.dtype if dtype == "auto" else getattr(torch, dtype)).itemsize
    needed = sum(weight.numel() for weight in base.parameters()) * itemsize
    device, free = PartialState().device, int(available() * FILLED)
    memory: dict[int | str, int] = {"cpu": free}
    if device.type == "cuda":
        free = memory[device.index or 0] = int(torch.cuda.mem_get_info(device)[0] * FILLED)
    if needed <= free or computes_with_weights(recipe):
        return {}
    return {"device_map": "auto", "max_memory": memory, "offload_folder": spare / "offloaded"}


def computes_with_weights(recipe: Recipe) -> bool:
    """Whether PEFT reads weights of the base model to apply the adapter, which then have to be in memory."""
    return bool(recipe["lora"].get("use_dora") or recipe["lora"].get("target_parameters"))


def load_to_merge(recipe: Recipe, folder: Path, dtype: str, **place: Any) -> PreTrainedModel:
    """The base model in unquantized weights of `dtype`: those it was trained with, or the original ones.

    `place` is what `where_it_fits` gave.
    """
    if recipe["merge"]["base"] == "original" or not trains_quantized(recipe, folder):
        base = load_unquantized(recipe, folder, dtype, **place)
    else:
        base = _dequantized(load_model(recipe, folder), dtype)
        _restore_conv1d(base, load_on_meta(recipe, folder))
    forget_quantized_file(base)
    return base


def _dequantized(base: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """A model with weights of bitsandbytes in plain ones of `dtype`.

    It goes from part to part, where PreTrainedModel.dequantize keeps every quantized weight to the end.
    """
    import torch
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers.integrations import dequantize_and_replace

    trained: torch.dtype = base.dtype
    target = trained if dtype == "auto" else getattr(torch, dtype)
    kinds, quantizer = (Linear4bit, Linear8bitLt), base.hf_quantizer
    quantized = [name for name, part in base.named_modules() if isinstance(part, kinds)]
    parents = {name.rpartition(".")[0] for name in quantized}
    for parent in sorted(parents, key=len, reverse=True):
        part = base.get_submodule(parent)
        dequantize_and_replace(part, quantization_config=quantizer.quantization_config, dtype=target)
    quantizer.remove_quantization_config(base)
    for weight in base.parameters():
        if weight.dtype == trained:  # some models keep a few weights in float32
            weight.data = weight.data.to(target)
    return base


def _restore_conv1d(base: PreTrainedModel, as_saved: PreTrainedModel) -> None:
    """Give a dequantized model the Conv1D modules that its class has, which bitsandbytes makes linear."""
    from torch.nn import Linear, Parameter
    from transformers.pytorch_utils import Conv1D

    for name, module in as_saved.named_modules():
        if isinstance(module, Conv1D) and isinstance(linear := base.get_submodule(name), Linear):
            module.weight, module.bias = Parameter(linear.weight.data.T.contiguous()), linear.bias
            base.set_submodule(name, module)


@dataclass(frozen=True)
class WholeMerge:
    """A model in memory with an adapter in its weights."""

    model: PreTrainedModel

    def save(self, folder: Path, **sharding: Any) -> None:
        """Write weights, config and generation settings."""
        self.model.save_pretrained(folder, **sharding)


def load_merged(recipe: Recipe, folder: Path, **place: Any) -> PreTrainedModel:
    """A merged model, in the precision that it was saved in, placed as `where_it_fits` says.

    Raises:
        LoracookError: weights are missing, or not finite.
    """
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    merged: PreTrainedModel
    merged, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", use_safetensors=True, output_loading_info=True, **own_code(recipe), **place
    )
    if missing := sorted(report["missing_keys"]):
        raise LoracookError(f"the merged model has no weight {missing[0]}; {MERGE_AGAIN}")
    if name := not_finite(merged.named_parameters()):
        raise LoracookError(f"the merged weight {name} holds NaN or infinity; {MERGE_AGAIN}")
    return (merged if place else merged.to(PartialState().device)).eval()


def try_merge(recipe: Recipe, folder: Path, tuned: PeftModel) -> PreTrainedModel | None:
    """Merge a copy of an adapted model on the meta device, save what is saved beside weights, and load it.

    Gives the copy; None where that cannot be done without weights.

    Raises:
        RecipeError: upstream refuses one of these, or would load other weights than were saved.
    """
    from transformers import AutoConfig

    with TemporaryDirectory(prefix="loracook-") as saved, _trying(recipe, "this model cannot be merged"):
        merged = deepcopy(tuned).merge_and_unload()
        forget_quantized_file(merged)
        merged.config.save_pretrained(saved)
        generation_settings(folder).config.save_pretrained(saved)
        _, report = type(merged).from_pretrained(
            None,
            config=AutoConfig.from_pretrained(saved, **own_code(recipe)),
            state_dict=saved_weights(merged),
            device_map="meta",
            **own_code(recipe),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        lost = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
        if lost:
            raise ValueError(f"{len(lost)} of its weights would not load again, such as {lost[0]}")
        return merged
    return None


def try_tokenizer(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save a tokenizer with a model's config as the merged model has it, and load it from there.

    Raises:
        RecipeError: upstream refuses that, or would load another tokenizer.
    """
    from transformers import AutoTokenizer

    with TemporaryDirectory(prefix="loracook-") as saved, _trying(recipe, "its tokenizer cannot be saved"):
        tokenizer.save_pretrained(saved)
        load_config(recipe, folder).save_pretrained(saved)  # AutoTokenizer may choose another class for it
        loaded = AutoTokenizer.from_pretrained(saved, **own_code(recipe))
        if different := different_tokens(tokenizer, loaded):
            raise ValueError(different)


def different_tokens(tokenizer: PreTrainedTokenizerBase, loaded: PreTrainedTokenizerBase) -> str:
    """What a tokenizer does otherwise once it was saved and loaded; empty for nothing."""
    if len(tokenizer) != len(loaded):
        return f"it has {len(tokenizer)} tokens, and {len(loaded)} once saved and loaded"
    if tokenizer.chat_template != loaded.chat_template:
        return "it has another chat template"
    if tokenizer.special_tokens_map != loaded.special_tokens_map:
        return "it has other special tokens"
    texts = [*PROBES, " ".join(map(str, tokenizer.all_special_tokens))]
    changed = next(
        (text for text in texts if tokenized(tokenizer, text).input_ids != tokenized(loaded, text).input_ids),
        None,
    )
    return "" if changed is None else f"'{changed}' gives other tokens once it was saved and loaded"


@contextmanager
def _trying(recipe: Recipe, what: str) -> Iterator[None]:
    """Make a problem of whatever upstream raises, unless the missing weights are the reason."""
    try:
        yield
    except (LoracookError, ImportError, MemoryError, OSError):
        raise
    except Exception as error:
        reason = shorten(" ".join(str(error).split()) or repr(error), LIMIT)
        if "meta" not in reason:
            problem = recipe.problem(MERGE, f"{what}: {reason}; {PUSH_THE_ADAPTER}")
            raise RecipeError([problem]) from error
