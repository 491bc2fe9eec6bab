"""Train: the recipe as a TRL SFTTrainer run that ends in an adapter."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.errors import DivergedError, LoracookError
from loracook.estimate.disk import check_disk
from loracook.estimate.rows import steps_of
from loracook.machine import signals
from loracook.machine.versions import WEIGHTS, versions
from loracook.progress import Progress
from loracook.stages import evaluate
from loracook.stages.base import Consent, Folders
from loracook.training.callbacks import callbacks, of_all_tries
from loracook.training.checkpoints import aside, differences, newest_sealed
from loracook.training.largest_batch import probing
from loracook.training.memory_check import plan_memory
from loracook.training.trainer import Ingredients, build, prepared

if TYPE_CHECKING:
    from peft import PeftModel
    from trl import SFTTrainer

    from loracook.recipe.recipe import Recipe

READS: tuple[str, ...] = ("base_model", "tokenizer", "dataset", "template", "quantization", "lora", "train")


def after(recipe: Recipe) -> tuple[str, ...]:
    """Training comes first."""
    return ()


def files(recipe: Recipe) -> tuple[Path, ...]:
    """The local base model, data files and template."""
    return (*model.files(recipe), *data.files(recipe))


def describe(recipe: Recipe) -> str:
    """Say what is trained on what."""
    bits = {"load_in_4bit": " in 4 bit", "load_in_8bit": " in 8 bit"}
    loaded = "".join(
        text for key, text in bits.items() if "quantization" in recipe and recipe["quantization"].get(key)
    )
    train, lora = recipe["train"], recipe["lora"]
    length, unit = train["num_train_epochs"], "epochs"
    if train.get("max_steps", -1) > 0:
        length, unit = train["max_steps"], "steps"
    words = f"{length:g} {unit if length != 1 else unit[:-1]}"
    return f"LoRA r {lora['r']} on {recipe['base_model']['name_or_path']}{loaded}, {words}"


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Train, or go on from the newest sealed checkpoint; leaves `adapter/` and `log.jsonl`.

    Raises:
        DivergedError: a loss, gradient or weight is no finite number.
        StoppedError: a signal came; a checkpoint of the current step is kept.
    """
    ingredients = prepared(recipe, folders.cache, progress)
    probe = plan_memory(recipe, ingredients, folders.cache)
    evaluate.before_training(recipe, ingredients.tokenizer, probe.drawn.base)
    check_disk(recipe, probe.drawn, steps_of(recipe, probe.found), folders.own)
    made = _made(recipe, ingredients, folders, probe.device.kind)
    checkpoints = folders.own / "checkpoints"
    checkpoint = _resumed(checkpoints, made, progress)
    probe.start()
    output = aside(checkpoints)
    sft = build(recipe, ingredients, output, cache=folders.cache, progress=progress)
    ours = callbacks(sft, folders.own / "log.jsonl", made, progress)
    for callback in (*ours, probing(sft, probe, progress)):
        sft.add_callback(callback)
    _place_tensorboard(sft, folders.own / "tensorboard")
    with probe.guarding():
        metrics = _train(sft, checkpoint)
    if sft.accelerator.is_main_process:
        save_adapter(sft, recipe, folders)
        shutil.rmtree(output, ignore_errors=True)
    return {
        "metrics": metrics,
        "resumed_from": checkpoint and checkpoint.name,
        "parameters": _parameters(sft.model),
        "settings": {"train": sft.args.to_dict(), "lora": sft.model.peft_config["default"].to_dict()},
        "steps": sft.state.global_step,
        "memory": probe.facts(),
        "base_commit": ingredients.commit,
        "data": {"digest": ingredients.rows.digest, "statistics": ingredients.rows.statistics},
        "best_checkpoint": sft.state.best_model_checkpoint and Path(sft.state.best_model_checkpoint).name,
    }


def save_adapter(sft: SFTTrainer, recipe: Recipe, folders: Folders) -> None:
    """Write `adapter/`: weights, tokenizer and template, the base model named as the recipe names it.

    Raises:
        DivergedError: a trained weight is no finite number.
    """
    import torch

    tuned, folder = sft.model, folders.own / "adapter"
    if not all(bool(torch.isfinite(weight).all()) for weight in tuned.parameters() if weight.requires_grad):
        raise DivergedError("the trained weights hold a value that is no finite number; nothing was saved")
    before = model.load_config(recipe, model.fetch_description(recipe, folders.cache)).vocab_size
    config = tuned.peft_config["default"]
    config.base_model_name_or_path = recipe["base_model"]["name_or_path"]
    config.revision = recipe["base_model"].get("revision")
    for name, value in vars(config).items():
        if isinstance(value, set):  # PEFT would write it in an order that differs from process to process
            setattr(config, name, sorted(value))
    # Grown embeddings travel along, since nobody else has those rows.
    tuned.save_pretrained(folder, save_embedding_layers=tuned.config.vocab_size != before)
    sft.processing_class.save_pretrained(folder)


def _made(recipe: Recipe, ingredients: Ingredients, folders: Folders, device: str) -> dict[str, Any]:
    """What decides the weights beside the steps that were taken, for the manifests of checkpoints."""
    return {
        "recipe": folders.own.name.rpartition("-")[2],
        "data": ingredients.rows.digest,
        "base": ingredients.commit,
        "device": device,
        "world size": int(os.environ.get("WORLD_SIZE", "1")),
        "seed": recipe["train"]["seed"],
        **{name: version for name, version in versions().items() if name in WEIGHTS},
    }


def _resumed(checkpoints: Path, made: Mapping[str, Any], progress: Progress) -> Path | None:
    """The checkpoint to go on from, None to begin.

    Raises:
        LoracookError: going on would not be the same, since something else made the checkpoint.
    """
    checkpoint, dropped = newest_sealed(checkpoints)
    for sentence in dropped:
        progress.note(sentence)
    if checkpoint is None:
        return None
    if changed := differences(checkpoint, made):
        message = f"cannot go on from {checkpoint.name}: {'; '.join(changed)}"
        raise LoracookError(f"{message}; change that back, or remove {checkpoints} to train anew")
    progress.note(f"going on from {checkpoint.name}")
    return checkpoint


def _place_tensorboard(sft: SFTTrainer, folder: Path) -> None:
    """Have TensorBoard's log stay; by default it lies with the unfinished checkpoints."""
    from transformers.integrations import TensorBoardCallback

    for callback in sft.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)


def _train(sft: SFTTrainer, checkpoint: Path | None) -> Mapping[str, float]:
    with signals.deferring_first():
        output = sft.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if signals.stop_requested():
        raise signals.stopped_error()
    metrics: dict[str, float] = output.metrics
    return of_all_tries(metrics) if checkpoint else metrics


def _parameters(tuned: PeftModel) -> dict[str, int]:
    trainable, everything = tuned.get_nb_trainable_parameters()
    return {"trainable": trainable, "all": everything}
