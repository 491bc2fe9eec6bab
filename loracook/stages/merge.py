"""Merge: the adapter merged into unquantized weights, saved and compared with what was trained."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.errors import TRAIN_AGAIN, LoracookError
from loracook.model.inference import end_tokens
from loracook.progress import Progress
from loracook.recipe.derived import first_rows
from loracook.recipe.recipe import Recipe
from loracook.stages.base import Consent, Folders

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


READS: tuple[str, ...] = ("merge",)
RESUMES = False
OUT_OF_MEMORY = "set merge.dtype: bfloat16, or merge on a machine with more memory: --only merge"
ROWS, LONGEST = 4, 64
"""How many rows of the data models are compared on, and up to which token."""


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
        LoracookError: the saved model is not what was trained.
    """
    adapter, base = folders.before["train"] / "adapter", model.fetch(recipe, folders.cache)
    tokenizer = model.saved_tokenizer(recipe, adapter)
    texts = _texts(recipe, tokenizer, folders.cache, progress=progress)
    progress.advance(0, 4, "loading the trained model")
    quantized = model.trains_quantized(recipe, base)
    trained = model.logits_of(_as_trained(recipe, base, adapter), texts) if quantized else []
    progress.advance(1, 4, "loading the base model")
    streamed = _streamed(recipe, base, adapter)
    place = model.where_it_fits(recipe, base, dtype=dtype(recipe), spare=folders.own) if streamed else {}
    tuned = model.load_tuned(recipe, model.load_to_merge(recipe, base, dtype(recipe), **place), adapter)
    expected = model.expected_logits(tuned, texts)
    progress.advance(2, 4, "merging")
    merge = streamed or _in_memory(recipe, tuned)
    del tuned
    with _whole(folders.own / "model") as unfinished:
        _stop_as_trained(merge.model, tokenizer)
        merge.save(unfinished, **_sharding(recipe))
        tokenizer.save_pretrained(unfinished)
        del merge
        progress.advance(3, 4, "loading the merged model")
        reloaded = _reloaded(recipe, unfinished, tokenizer, **place)
        if fault := model.unlike(reloaded, model.load_on_meta(recipe, base)):
            raise LoracookError(f"the merged model has other weights than its base model: {fault}")
        merged = model.logits_of(reloaded, texts)
        compared = expected.compare(merged)
        if compared["adapter_difference"] == 0:
            progress.note(
                "the adapter changes no logits, so the merged model is the base model; train longer"
            )
        shutil.rmtree(folders.own / "offloaded", ignore_errors=True)
        progress.advance(4, 4, f"logits differ by {compared['logits_difference']:.2%}")
    return {
        "dtype": dtype(recipe),
        "base": recipe["merge"]["base"],
        "weight_by_weight": streamed is not None,
        **compared,
        "logits_difference_from_trained": model.agreement(trained, merged).difference if trained else None,
        "prompts": len(texts),
        "serving": [each.facts() for each in model.merged_serving(recipe)],
        "generation_settings_left_out": dict(model.generation_settings(base).left_out),
    }


def _texts(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path, *, progress: Progress
) -> list[list[int]]:
    """What models are compared on, as token ids: fixed texts, and the beginnings of some rows."""
    first = first_rows(recipe.sections)
    rows = data.prepare(recipe, tokenizer, cache, progress=progress, first=first)
    some = itertools.islice(rows.train if rows.evaluation is None else rows.evaluation, ROWS)
    return [
        *(model.tokenized(tokenizer, text).input_ids for text in model.PROBES),
        *(row["input_ids"][:LONGEST] for row in some),
    ]


def _streamed(recipe: Recipe, base: Path, adapter: Path) -> model.StreamedMerge | None:
    """The merge weight by weight, None where it takes the whole model."""
    try:
        return model.streamed_merge(recipe, base, adapter, dtype=dtype(recipe))
    except model.NotStreamedError:
        return None


def _in_memory(recipe: Recipe, tuned: PeftModel) -> model.WholeMerge:
    """The model with the adapter in its weights; raises LoracookError where these are not finite."""
    try:
        merged = tuned.merge_and_unload(safe_merge=recipe["merge"]["safe_merge"])
    except ValueError:  # safe_merge has found a weight, but does not say which
        merged = tuned.merge_and_unload()
    if name := model.not_finite(merged.named_parameters()):
        held = f"the merged weight {name} holds NaN or infinity as {merged.dtype}"
        raise LoracookError(f"{held}; write merge.dtype: float32, or {TRAIN_AGAIN}")
    return model.WholeMerge(merged)


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


def _as_trained(recipe: Recipe, base: Path, adapter: Path) -> PeftModel:
    """The model as it was trained."""
    return model.load_tuned(recipe, model.load_model(recipe, base), adapter)


def _reloaded(
    recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase, **place: Any
) -> PreTrainedModel:
    """A saved model, with the tokenizer of training.

    Raises:
        LoracookError: it is another.
    """
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder, **model.own_code(recipe))
    if different := model.different_tokens(tokenizer, saved):
        raise LoracookError(f"the merged model's tokenizer is not the adapter's: {different}")
    return model.load_merged(recipe, folder, **place)


def _sharding(recipe: Recipe) -> dict[str, Any]:
    return {key: recipe["merge"][key] for key in ("max_shard_size",) if key in recipe["merge"]}
