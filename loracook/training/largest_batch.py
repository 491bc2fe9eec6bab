"""The largest batch, tried before step 1: forward and backward, after which everything is as before."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.estimate.weight_bytes import optimizer_bytes
from loracook.machine import upstream
from loracook.progress import Progress
from loracook.training.memory_check import MemoryCheck, check_memory
from loracook.training.trainer import TrainerInputs, build
from loracook.units import size

if TYPE_CHECKING:
    from trl import SFTTrainer

SHORT = 50
"""A run of fewer forward passes is not tried beforehand: one more pass would cost over 2 % of its time."""


def try_before_training(sft: SFTTrainer, check: MemoryCheck, progress: Progress) -> None:
    """Let a run that is long enough try its largest batch before step 1.

    Training then raises MachineError when the batch does not fit, with the changes that would make it fit.
    """
    from loracook.training.callbacks import BeforeTraining

    def act(passes: int) -> None:
        rows = check.estimate.rows
        if passes >= SHORT and rows is not None and rows.exact:
            measure(sft, check)
            progress.note(sentence(check))

    sft.add_callback(BeforeTraining(act))


def measure_alone(inputs: TrainerInputs, cache: Path, progress: Progress) -> MemoryCheck:
    """Load the model, try its largest batch as a run would before step 1, and stop there.

    Raises:
        MachineError: it does not fit.
    """
    from loracook.training.callbacks import BeforeTraining

    check = check_memory(inputs)
    check.start()

    def act(_: int) -> None:
        measure(sft, check)
        measure(sft, check)  # the first pass also warms up; the second takes the time of a step
        raise _TriedError

    with tempfile.TemporaryDirectory(prefix="loracook-") as folder:
        sft = build(inputs, Path(folder), cache=cache, progress=progress)
        sft.add_callback(BeforeTraining(act))
        with suppress(_TriedError):
            sft.train()
    return check


class _TriedError(Exception):
    """Ends training once the batch was tried."""


def measure(sft: SFTTrainer, check: MemoryCheck) -> None:
    """A forward and backward pass of the largest batch, after which everything is as before.

    Raises:
        MachineError: it does not fit.
    """
    estimate = check.estimate
    with check.guarding():
        check.seconds = _try(sft, [sft.train_dataset[row] for row in estimate.batch.rows])
    if (peak := check.peak()) is not None:  # the optimizer has no state before its first step
        check.measured = peak + optimizer_bytes(estimate.meta_model.tuned, estimate.recipe["train"])


def sentence(check: MemoryCheck) -> str:
    """What was measured beside what was estimated."""
    batch = check.estimate.batch
    planned = f", estimated {size(check.planned)}" if check.planned is not None else ""
    count = len(batch.rows)
    rows = f"{count} row{'s' * (count != 1)}, {batch.length} tokens"
    taken = (
        "an unknown amount (this process took more before)"
        if check.measured is None
        else size(check.measured)
    )
    return f"the largest batch ({rows}) takes {taken}{planned}"


def _try(sft: SFTTrainer, rows: list[dict[str, Any]]) -> float:
    """Seconds of the passes; random numbers, gradients and TRL's running metrics stay as they are."""
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    began = time.monotonic()
    with torch.random.fork_rng(devices=devices), upstream.metrics_aside(sft):
        sft.model_wrapped.train()
        with sft.maybe_activation_offload_context:  # as in TRL's training_step
            with sft.compute_loss_context_manager():
                batch = upstream.on_device(sft, sft.data_collator(rows))
                loss = sft.compute_loss(sft.model_wrapped, batch)
            loss.backward()
    loss.item()  # waits for a GPU to finish
    sft.model_wrapped.zero_grad()
    return round(time.monotonic() - began, 3)
