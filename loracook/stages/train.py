"""Train: the recipe as a TRL SFTTrainer run that ends in an adapter."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import data, model
from loracook.errors import MachineError
from loracook.estimate.disk import check_disk
from loracook.machine import signals, upstream
from loracook.progress import Kept, Progress
from loracook.recipe.derived import first_rows, other_tokenizer
from loracook.recipe.recipe import Recipe
from loracook.stages.base import Consent, Folders
from loracook.training import group
from loracook.training.checkpoints import (
    is_last,
    skip,
    staging_folder,
    taken_from,
)
from loracook.training.largest_batch import try_before_training
from loracook.training.launch import launched
from loracook.training.loadable import misfit
from loracook.training.memory_check import ADVICE, MemoryCheck, check_memory
from loracook.training.processes import AUTO, Processes, divided, shared
from loracook.training.result import adapter_effects, stated
from loracook.training.resume import made_by, resumed, start, to_resume_from
from loracook.training.save import save_adapter
from loracook.training.trainer import TrainerInputs, build, check_trackers, read_inputs

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import SFTTrainer


READS: tuple[str, ...] = ("base_model", "tokenizer", "dataset", "template", "quantization", "lora", "train")
RESUMES = True
OUT_OF_MEMORY = ADVICE


def after(recipe: Recipe) -> tuple[str, ...]:
    """Training comes first."""
    return ()


def files(recipe: Recipe) -> tuple[Path, ...]:
    """The local base model, its tokenizer, data files, template, and the adapter to start from."""
    files = (*model.files(recipe), *data.files(recipe), *model.start_files(recipe))
    return (*files, *model.tokenizer_files(recipe))


def describe(recipe: Recipe) -> str:
    """Say what is trained on what."""
    quantization = recipe.sections.get("quantization", {})
    bits = {"load_in_4bit": " in 4 bit", "load_in_8bit": " in 8 bit"}
    loaded = "".join(text for key, text in bits.items() if quantization.get(key))
    train, lora = recipe["train"], recipe["lora"]
    length, unit = train["num_train_epochs"], "epochs"
    if train.get("max_steps", -1) > 0:
        length, unit = train["max_steps"], "steps"
    duration = f"{length:g} {unit if length != 1 else unit[:-1]}"
    start = f", from {lora['start_from']}" if "start_from" in lora else ""
    other = other_tokenizer(recipe.sections)
    tokenizer = f", tokenizer of {other}" if other else ""
    return (
        f"LoRA r={lora['r']} on {recipe['base_model']['name_or_path']}{loaded}{tokenizer}, {duration}{start}"
    )


def uploads_to(recipe: Recipe) -> str | None:
    """The adapter stays on this machine."""
    return None


def preflight(recipe: Recipe, consent: Consent) -> None:
    """Raise MachineError for a tracker that is not installed."""
    check_trackers(recipe)


def accept(recipe: Recipe, folder: Path) -> None:
    """Nothing is required of it."""


def run(recipe: Recipe, folders: Folders, *, consent: Consent, progress: Progress) -> dict[str, Any]:
    """Train, or resume from the newest sealed checkpoint; leaves `adapter/` and `log.jsonl`.

    Raises:
        DivergedError: a loss, gradient or weight is not finite.
        StoppedError: a signal came; a checkpoint of the current step is kept.
    """
    import torch

    processes, noted = consent.processes, Kept(progress)
    check_trackers(recipe)
    own = divided(recipe, processes.count)
    launches = processes.count > group.size()
    if launches or (group.size() > 1 and group.is_first() and processes.strategy == AUTO):
        processes = _read(own, processes, folders, progress=noted)[1].processes
        consent = replace(consent, processes=processes)
    if processes.count > 1 and group.is_first():
        noted.note(shared(own, processes))
    job = ("train", recipe, folders, replace(consent, callbacks=()))
    if launches:
        model.fetch(own, folders.cache)
        return launched(job, processes.count, noted)
    own_precision = torch.backends.flags(fp32_precision=None)  # TF32 is for training alone
    with group.together(job), own_precision:
        with group.first_before_others():
            inputs, memory = _read(own, processes, folders, progress=noted)
        return _train(inputs, folders, memory, callbacks=consent.callbacks, progress=progress)


def _read(
    recipe: Recipe, processes: Processes, folders: Folders, *, progress: Progress
) -> tuple[TrainerInputs, MemoryCheck]:
    """What training needs besides weights, all of it checked; data is prepared where it is not cached."""
    inputs = read_inputs(recipe, folders.cache, progress, first=first_rows(recipe.sections, processes.count))
    memory = check_memory(inputs, processes)
    for advice in memory.estimate.precision_advice.values():
        progress.note(advice)
    check_disk(memory.estimate, folders.own)
    return inputs, memory


def _train(
    inputs: TrainerInputs,
    folders: Folders,
    memory: MemoryCheck,
    *,
    callbacks: tuple[TrainerCallback, ...],
    progress: Progress,
) -> dict[str, Any]:
    """Train in this process, and in those that it trains together with; only the first one writes."""
    digest = folders.own.name.rpartition("-")[2]
    facts = made_by(inputs, digest, device=memory.estimate.device.kind)
    group.check_same(facts, "the processes would not train the same")
    checkpoints = folders.own / "checkpoints"
    checkpoint = group.from_first(
        lambda: to_resume_from(checkpoints, facts, shorter=folders.shorter, progress=progress)
    )
    _check_shared(checkpoint)
    memory.start()
    output = group.from_first(lambda: staging_folder(checkpoints))
    strategy = memory.processes.strategy
    sft = build(inputs, output, cache=folders.cache, progress=progress, strategy=strategy)
    while checkpoint and (fault := group.first_of(misfit(checkpoint, sft))):
        progress.note(group.from_first(partial(skip, checkpoint, fault)))
        checkpoint = group.from_first(lambda: resumed(checkpoints, facts, progress))
    lengthens = checkpoint and taken_from(checkpoint)
    proofs = _add_callbacks(sft, inputs, folders=folders, made_by=facts, memory=memory, progress=progress)
    for callback in callbacks:
        sft.add_callback(callback)
    try_before_training(sft, memory, progress)
    group.gathered(None)  # loading may take one process longer than NCCL lets the others wait for it
    with memory.guarding():
        metrics = _trained(sft, checkpoint)
    changed, used = [], memory.facts()  # the base model's file is mapped once more for what follows
    if group.is_first():
        adapter = folders.own / "adapter"
        save_adapter(sft, inputs, adapter, sections=READS)
        shutil.rmtree(output, ignore_errors=True)
        changed = adapter_effects(inputs.recipe, adapter, cache=folders.cache, progress=progress)
    return {
        **stated(sft, inputs),
        "metrics": metrics,
        "resumed_from": checkpoint and checkpoint.name,
        "lengthens": lengthens,
        "effects": changed,
        "memory": used,
        "processes": {"count": group.size(), **proofs},
        **start(inputs.recipe),
    }


def _check_shared(checkpoint: Path | None) -> None:
    """Raise MachineError where a process does not see the checkpoint that all of them resume from."""
    if checkpoint and not all(group.gathered(checkpoint.is_dir())):
        message = f"{checkpoint} is not there on every machine"
        raise MachineError(f"{message}; use a folder that they share: --runs DIR")


def _add_callbacks(
    sft: SFTTrainer,
    inputs: TrainerInputs,
    *,
    folders: Folders,
    made_by: Mapping[str, Any],
    memory: MemoryCheck,
    progress: Progress,
) -> dict[str, Any]:
    """Add loracook's own callbacks, and keep TensorBoard's log out of the unfinished checkpoints' folder.

    Gives what processes that train together prove, once they have trained.
    """
    from transformers.integrations import TensorBoardCallback

    from loracook.training.callbacks import FiniteGradients, LastStepLogged, ProgressLog, SealedCheckpoints

    kept, log = folders.own / "checkpoints", folders.own / "log.jsonl"
    # The first one restores the count of tokens, from which the second goes on.
    sft.add_callback(SealedCheckpoints(sft, kept, made_by))
    if group.is_first():
        sft.add_callback(ProgressLog(sft, log, kept=kept, memory=memory, progress=progress))
    for callback in (LastStepLogged(), FiniteGradients(kept)):
        sft.add_callback(callback)
    for callback in sft.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folders.own / "tensorboard")
    if group.size() == 1:
        return {}
    from loracook.training.proofs import Proofs

    proofs = Proofs(sft, random=inputs.draws_random_numbers)
    sft.add_callback(proofs)
    return proofs.facts


def _trained(sft: SFTTrainer, checkpoint: Path | None) -> Mapping[str, float]:
    from loracook.training.callbacks import of_all_steps

    if checkpoint and is_last(checkpoint):
        upstream.load_finished(sft, checkpoint)
        return {"total_flos": sft.state.total_flos, "epoch": sft.state.epoch}
    with signals.deferring_first():
        output = sft.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        stopped = group.any_of(signals.stop_requested())  # by a signal that one process alone may get
    if stopped:
        raise signals.stopped_error()
    metrics: dict[str, float] = output.metrics
    return of_all_steps(metrics) if checkpoint else metrics
