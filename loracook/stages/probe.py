"""The probe: what training needs of memory, planned, then measured on the largest batch before step 1."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import devices, meter, model
from loracook.errors import MachineError
from loracook.fitting import changes
from loracook.guards import ADVICE
from loracook.model.blueprint import Blueprint, blueprint
from loracook.model.needs import needs
from loracook.model.refusals import check_rows
from loracook.model.walk import WalkError
from loracook.model.weights import optimizer_bytes
from loracook.sizes import size
from loracook.stages.base import Progress, Silent
from loracook.stages.trainer import Ingredients, build, prepared
from loracook.steps import Batch
from loracook.survey import Survey, batch_of, longest_row, surveyed

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import SFTTrainer

    from loracook.recipe import Recipe

SHORT = 50
"""A run of fewer forward passes is its own probe: one more would cost over 2 % of its time."""
LATER = ("evaluate", "merge")
"""Sections of stages whose memory is not the probe's matter."""
DOUBT = 1.25
"""The plan's worst error on a CPU (benchmarks/README.md); beyond it, a plan that does not fit is believed."""


@dataclass
class Probe:
    """Bytes that training is planned to take and took for the largest batch, None before that is known.

    `before` are those of the process with its libraries; `seconds` those of one forward and backward pass.
    """

    recipe: Recipe
    drawn: Blueprint
    found: Survey
    batch: Batch
    device: devices.Device
    folder: Path
    vocabulary: int
    planned: int | None
    before: int = 0
    probed: int | None = None
    seconds: float | None = None

    def start(self) -> None:
        """Begin to measure; call it before weights are loaded and after libraries are."""
        import trl.trainer.sft_trainer  # noqa: F401  # what libraries take is not training's

        self.before = meter.start(self.device.kind)

    def facts(self) -> dict[str, Any]:
        """What the record says of memory, as plain JSON values, the run's own peak included."""
        measured = meter.peak(self.device.kind) - self.before
        return {
            "planned_bytes": self.planned,
            "probed_bytes": self.probed,
            "measured_bytes": measured,
            "planned_over_measured": round(self.planned / measured, 3)
            if self.planned and measured > 0
            else None,
            "batch": {"rows": len(self.batch.rows), "length": self.batch.length},
            "seconds_for_batch": self.seconds,
            "device": asdict(self.device),
        }

    def refusal(self) -> MachineError:
        """The error that says what is needed, what is there, and what to write."""
        free = f"{size(self.device.bytes)} are free on {self.device.name}"
        if self.planned is None:
            return MachineError(f"the largest batch is out of memory: {free}; {ADVICE['train']}")
        writes = ", ".join(self._writes(self.planned)) or "the name of a smaller base model"
        return MachineError(f"out of memory: {size(self.planned)} are needed, {free}; write {writes}")

    def _writes(self, planned: int) -> list[str]:
        """The changes that make training fit; where it was planned to fit and does not, in a tenth less."""

        def redraw(changed: Recipe) -> Blueprint:
            return blueprint(changed, self.folder, self.vocabulary)

        room = replace(self.device, bytes=min(self.device.bytes, planned * 9 // 10))
        sections = {name: found for name, found in self.recipe.sections.items() if name not in LATER}
        training = replace(self.recipe, sections=sections)
        return [change.write for change in changes(training, self.drawn, self.found, room, redraw)]


def plan_memory(recipe: Recipe, ingredients: Ingredients, cache: Path) -> Probe:
    """The probe of a run with its planned figure, before weights are loaded.

    Raises:
        MachineError: a CPU's memory is too small by more than the plan's error.
    """
    folder, vocabulary = model.fetch_description(recipe, cache), len(ingredients.tokenizer)
    drawn, found = blueprint(recipe, folder, vocabulary), surveyed(recipe, ingredients.rows)
    check_rows(drawn.base, recipe, longest_row(recipe, found))
    batch, device = batch_of(recipe, found), devices.device_here()
    planned = _planned(recipe, drawn, batch, device)
    probe = Probe(recipe, drawn, found, batch, device, folder, vocabulary, planned)
    if device.kind == "cpu" and planned and planned > DOUBT * device.bytes:
        raise probe.refusal()
    return probe


def _planned(recipe: Recipe, drawn: Blueprint, batch: Batch, device: devices.Device) -> int | None:
    try:
        return needs(recipe, drawn, batch, device=device.kind).training.peak
    except WalkError:  # the probe will measure what cannot be foreseen
        return None


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
    try:
        probe.seconds = _try(sft, [sft.train_dataset[row] for row in probe.batch.rows])
    except (MemoryError, RuntimeError) as error:
        if not _is_short(error):
            raise
        raise probe.refusal() from error
    # The optimizer has no state before its first step.
    state = optimizer_bytes(probe.drawn.tuned, probe.recipe["train"])
    probe.probed = meter.peak(probe.device.kind) - probe.before + state


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


def _is_short(error: Exception) -> bool:
    """Whether memory ran out: on a GPU, or where torch's CPU allocator says that it cannot allocate."""
    torch = sys.modules["torch"]
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
