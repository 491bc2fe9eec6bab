"""The probe: the memory that training is planned to need and took, and what to write where it is short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook import model
from loracook.errors import MachineError
from loracook.estimate.batches import Batch
from loracook.estimate.fake_step import WalkError
from loracook.estimate.make_it_fit import changes
from loracook.estimate.meta_model import Blueprint, blueprint
from loracook.estimate.rows import Survey, batch_of, surveyed
from loracook.estimate.stage_memory import needs
from loracook.machine import devices, memory
from loracook.machine.faults import FREE_MEMORY, shortage
from loracook.model.unsupported import check_rows
from loracook.training.trainer import Ingredients
from loracook.units import size

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

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

        self.before = memory.reset_peak(self.device.kind)

    def facts(self) -> dict[str, Any]:
        """What the record says of memory, as plain JSON values, the run's own peak included."""
        measured = memory.peak(self.device.kind) - self.before
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

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Have memory that runs out end in the refusal."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if shortage(error) != "memory":
                raise
            raise self.refusal() from error

    def refusal(self) -> MachineError:
        """The error that says what is needed, what is there, and what to write."""
        free = f"{size(self.device.bytes)} are free on {self.device.name}"
        if self.planned is None:
            return MachineError(f"the largest batch is out of memory: {free}; {FREE_MEMORY['train']}")
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
    check_rows(drawn.base, recipe, found.longest)
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
