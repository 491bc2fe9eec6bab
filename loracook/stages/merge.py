"""Merge: the adapter merged into the unquantized base model, saved as one model and compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.errors import LoracookError
from loracook.model.inference import end_tokens
from loracook.progress import Progress
from loracook.recipe.recipe import Recipe
from loracook.stages.base import Consent, Folders

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


READS: tuple[str, ...] = ("merge",)
RESUMES = False
OUT_OF_MEMORY = "set merge.dtype: bfloat16, or merge on a machine with more memory: --only merge"
PROBES = (
    "The capital of France is",
    "def fibonacci(n):",
    "Dear customer, thank you for",
    "3, 5, 7, 11,",
    "Once upon a time",
)
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
    return f"adapter and base model into one model in {dtype(recipe)}"


def uploads_to(recipe: Recipe) -> str | None:
    """The merged model stays on this machine."""
    return None


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Nothing can be checked here that the plan does not check."""


def dtype(recipe: Recipe) -> str:
    """The precision of the merged weights: that of the base model unless the recipe says otherwise."""
    name: str = recipe["merge"].get("dtype", recipe["base_model"]["dtype"])
    return name


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Merge into unquantized weights, save `model/`, load it again and compare its logits with the adapter's.

    Raises:
        LoracookError: the saved model's logits are not the adapter's.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter, target = folders.before["train"] / "adapter", folders.own / "model"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    progress.advance(0, 3, "loading the base model")
    base = model.load_unquantized(recipe, model.fetch(recipe, folders.cache), dtype(recipe))
    tuned = model.load_tuned(base, adapter)
    progress.advance(1, 3, "merging")
    expected = _logits(tuned, tokenizer)
    merged = tuned.merge_and_unload(safe_merge=recipe["merge"].get("safe_merge", True))
    _stop_as_trained(merged, tokenizer)
    merged.save_pretrained(target, **_sharding(recipe))
    tokenizer.save_pretrained(target)
    del base, tuned, merged
    progress.advance(2, 3, "loading the merged model")
    reloaded = AutoModelForCausalLM.from_pretrained(target, dtype="auto").to(expected[0].device).eval()
    difference = _difference(expected, _logits(reloaded, tokenizer))
    progress.advance(3, 3, f"logits differ by {difference:.2%}")
    if not difference <= TOLERANCE:
        raise LoracookError(
            f"the merged model's logits differ from the adapter's by {difference:.1%} of their norm, "
            f"more than the {TOLERANCE:.0%} of rounding; write merge.dtype: float32"
        )
    return {"dtype": dtype(recipe), "logits_difference": difference, "prompts": len(PROBES)}


def _stop_as_trained(merged: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the merged model end its answers where training and evaluation did, whoever generates with it."""
    merged.generation_config.eos_token_id = end_tokens(merged, data.end_ids(tokenizer))
    merged.generation_config.pad_token_id = tokenizer.pad_token_id


def _sharding(recipe: Recipe) -> dict[str, Any]:
    return {key: recipe["merge"][key] for key in ("max_shard_size",) if key in recipe["merge"]}


def _logits(causal: Any, tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    import torch

    with torch.no_grad():
        return [
            causal(**tokenizer(text, return_tensors="pt").to(causal.device)).logits.float().cpu()
            for text in PROBES
        ]


def _difference(expected: list[Tensor], actual: list[Tensor]) -> float:
    """The largest relative L2 distance between two lists of logits, as a fraction (0 is equal)."""
    return max(float((a - b).norm() / a.norm()) for a, b in zip(expected, actual, strict=True))
