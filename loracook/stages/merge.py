"""Merge: the adapter merged into unquantized weights, saved and compared with what was trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.errors import TRAIN_AGAIN, DivergedError, LoracookError
from loracook.model.inference import end_tokens
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.stages.base import Consent, Folders

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


READS: tuple[str, ...] = ("merge",)
RESUMES = False
OUT_OF_MEMORY = "set merge.dtype: bfloat16, or merge on a machine with more memory: --only merge"
TOLERANCE = 0.05
"""The largest difference between the merged model's logits and the adapter's, relative to their L2 norm:
bfloat16 keeps 8 bits (a rounding error of 2^-9 = 0.2 %) and a merge rounds every adapted weight once."""


def after(recipe: Recipe) -> tuple[str, ...]:
    """A merge needs the adapter."""
    return ("train",)


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Nothing local beyond what training read."""
    return ()


def describe(recipe: Recipe) -> str:
    """Say what is merged, and in which precision."""
    kind = {"trained": "dequantized ", "original": "original "} if "quantization" in recipe else {}
    return f"adapter and {kind.get(recipe['merge']['base'], '')}base model into one model in {dtype(recipe)}"


def uploads_to(recipe: Recipe) -> str | None:
    """The merged model stays on this machine."""
    return None


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Everything that merging reads and writes is tried by the plan, and by training before its weights."""


def dtype(recipe: Recipe) -> str:
    """The precision of the merged weights: that of the base model unless the recipe says otherwise."""
    name: str = recipe["merge"].get("dtype", recipe["base_model"]["dtype"])
    return name


def accept(recipe: Recipe, folder: Path) -> None:
    """Nothing is required of it."""


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Merge into unquantized weights, save `model/`, load it again and compare it with what was trained.

    `model/` is there once the comparison has passed, and whole.

    Raises:
        LoracookError: the saved model's logits are not the adapter's.
    """
    adapter, base = folders.before["train"] / "adapter", model.fetch(recipe, folders.cache)
    tokenizer = model.saved_tokenizer(recipe, adapter)
    progress.advance(0, 4, "loading the trained model")
    trained = _trained_logits(recipe, base, adapter)
    progress.advance(1, 4, "loading the base model")
    tuned = model.load_tuned(recipe, model.load_to_merge(recipe, base, dtype(recipe)), adapter)
    expected = _logits(tuned, tokenizer)
    progress.advance(2, 4, "merging")
    merged = _merged(recipe, tuned)
    del tuned
    with _whole(folders.own / "model") as unfinished:
        _stop_as_trained(merged, tokenizer)
        merged.save_pretrained(unfinished, **_sharding(recipe))
        tokenizer.save_pretrained(unfinished)
        del merged
        progress.advance(3, 4, "loading the merged model")
        logits = _reloaded_logits(recipe, unfinished, tokenizer)
        difference = _difference(expected, logits)
        progress.advance(4, 4, f"logits differ by {difference:.2%}")
        if not difference <= TOLERANCE:
            raise LoracookError(
                f"the merged model's logits differ from the adapter's by {difference:.1%} of their norm, "
                f"more than the {TOLERANCE:.0%} of rounding; write merge.dtype: float32"
            )
    return {
        "dtype": dtype(recipe),
        "base": recipe["merge"]["base"],
        "logits_difference": difference,
        "logits_difference_from_trained": _difference(trained, logits) if trained else None,
        "prompts": len(model.PROBES),
        "generation_settings_left_out": dict(model.generation_settings(base).left_out),
    }


def _merged(recipe: Recipe, tuned: PeftModel) -> Any:
    """The model with the adapter in its weights; raises LoracookError where these are not finite."""
    try:
        merged = tuned.merge_and_unload(safe_merge=recipe["merge"]["safe_merge"])
    except ValueError:  # safe_merge has found a weight, but does not say which
        merged = tuned.merge_and_unload()
    if name := model.not_finite(merged.named_parameters()):
        held = f"the merged weight {name} holds NaN or infinity as {merged.dtype}"
        raise LoracookError(f"{held}; write merge.dtype: float32, or {TRAIN_AGAIN}")
    return merged


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write beside `folder`, which it becomes at the end; where that fails, neither is left."""
    unfinished = folder.with_suffix(".part")
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(folder)


def _stop_as_trained(merged: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the merged model end its answers where training and evaluation did, whoever generates with it."""
    merged.generation_config.eos_token_id = end_tokens(merged, data.end_ids(tokenizer))
    merged.generation_config.pad_token_id = tokenizer.pad_token_id


def _trained_logits(recipe: Recipe, base: Path, adapter: Path) -> list[Tensor]:
    """The logits of the model as it was trained, where its base is quantized; else none."""
    if not model.trains_quantized(recipe, base):
        return []
    tuned = model.load_tuned(recipe, model.load_model(recipe, base), adapter)
    return _logits(tuned, model.saved_tokenizer(recipe, adapter))


def _reloaded_logits(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    """The logits of a saved model on the tokens of its own tokenizer, which are those trained on.

    Raises:
        LoracookError: they are not.
    """
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder, **model.own_code(recipe))
    if different := model.different_tokens(tokenizer, saved):
        raise LoracookError(f"the merged model's tokenizer is not the adapter's: {different}")
    return _logits(model.load_merged(recipe, folder), saved)


def _sharding(recipe: Recipe) -> dict[str, Any]:
    return {key: recipe["merge"][key] for key in ("max_shard_size",) if key in recipe["merge"]}


def _logits(causal: Any, tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    """The logits of a model on some texts.

    Raises:
        DivergedError: they are not finite, or all zero, so that nothing can be compared with them.
    """
    import torch

    with torch.no_grad():
        inputs = (tokenizer(text, return_tensors="pt").to(causal.device) for text in model.PROBES)
        logits = [causal(**each).logits.float().cpu() for each in inputs]
    if not all(0 < each.norm() < torch.inf for each in logits):
        seen = f"the {causal.dtype} model's logits are NaN, infinite or all zero"
        raise DivergedError(f"{seen}; write merge.dtype: float32, or {TRAIN_AGAIN}")
    return logits


def _difference(expected: list[Tensor], actual: list[Tensor]) -> float:
    """The largest relative L2 distance between two lists of logits, as a fraction (0 is equal)."""
    return max(float((a - b).norm() / a.norm()) for a, b in zip(expected, actual, strict=True))
