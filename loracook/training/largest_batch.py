"""The largest batch, tried before step 1: forward and backward, after which everything is as it was."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.estimate.weight_bytes import optimizer_bytes
from loracook.machine import memory
from loracook.progress import Progress, Silent
from loracook.training.memory_check import Probe, plan_memory
from loracook.training.trainer import build, prepared
from loracook.units import size

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import SFTTrainer

    from loracook.recipe.recipe import Recipe

SHORT = 50
"""A run of fewer forward passes is its own probe: one more would cost over 2 % of its time."""


def probing(sft: SFTTrainer, probe: Probe, progress: Progress) -> TrainerCallback:
    """The callback that tries the largest batch before step 1 of a run that is long enough for it.

    It raises MachineError when the batch does not fit, with the changes that would make it fit.
    """
    # transformers demands a subclass, and is imported only once training starts.
    from transformers import TrainerCallback

    class Probing(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            passes = (state.max_steps - state.global_step) * args.gradient_accumulation_steps
            if passes >= SHORT and probe.found.exact:
                measure(sft, probe)
                progress.note(sentence(probe))

    return Probing()


def probe_alone(recipe: Recipe, cache: Path) -> Probe:
    """Load the model, try its largest batch as a run would before step 1, and stop there.

    Raises:
        MachineError: it does not fit.
    """
    ingredients = prepared(recipe, cache, Silent())
    probe = plan_memory(recipe, ingredients, cache)
    probe.start()
    with tempfile.TemporaryDirectory(prefix="loracook-") as folder:
        sft = build(recipe, ingredients, Path(folder), cache=cache, progress=Silent())
        sft.add_callback(_trying(sft, probe))
        with suppress(_TriedError):
            sft.train()
    return probe


class _TriedError(Exception):
    """Ends training once the batch was tried."""


def _trying(sft: SFTTrainer, probe: Probe) -> TrainerCallback:
    from transformers import TrainerCallback

    class Trying(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            measure(sft, probe)
            measure(sft, probe)  # the first pass also warms up; the second has the time of a step
            raise _TriedError

    return Trying()


def measure(sft: SFTTrainer, probe: Probe) -> None:
    """A forward and backward pass of the largest batch, after which everything is as it was before.

    Raises:
        MachineError: it does not fit.
    """
    with probe.guarding():
        probe.seconds = _try(sft, [sft.train_dataset[row] for row in probe.batch.rows])
    # The optimizer has no state before its first step.
    state = optimizer_bytes(probe.drawn.tuned, probe.recipe["train"])
    probe.probed = memory.peak(probe.device.kind) - probe.before + state


def sentence(probe: Probe) -> str:
    """What was measured beside what was planned."""
    rows, length = len(probe.batch.rows), probe.batch.length
    planned = f", planned {size(probe.planned)}" if probe.planned is not None else ""
    return f"the largest batch ({rows} rows, {length} tokens) takes {size(probe.probed or 0)}{planned}"


def _try(sft: SFTTrainer, rows: list[dict[str, Any]]) -> float:
    """Seconds of the passes; random numbers, gradients and TRL's running metrics stay as they were."""
    import torch

    tokens = sft._total_train_tokens
    kept = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    began = time.monotonic()
    with torch.random.fork_rng(devices=kept):
        sft.model_wrapped.train()
        with sft.compute_loss_context_manager():
            loss = sft.compute_loss(sft.model_wrapped, sft._prepare_inputs(sft.data_collator(rows)))
        loss.backward()
    loss.item()  # waits for a GPU to finish
    sft.model_wrapped.zero_grad()
    sft._total_train_tokens = tokens
    sft._metrics["train"].clear()
    return round(time.monotonic() - began, 3)
