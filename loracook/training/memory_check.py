"""The memory that training was estimated to take and took, and what to write where it is too little."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from loracook.errors import MachineError
from loracook.estimate.estimate import Estimate, estimate
from loracook.estimate.make_it_fit import fitting_changes
from loracook.estimate.rows import prepared_stats
from loracook.machine import memory
from loracook.machine.devices import device_here
from loracook.machine.faults import shortage
from loracook.training.processes import ONE, Processes, with_strategy
from loracook.training.trainer import TrainerInputs
from loracook.units import size

OTHER_STAGES = ("evaluate", "merge", "export")
"""Sections of stages whose memory is not checked here."""
ADVICE = (
    "set train.per_device_train_batch_size: 1 with a larger gradient_accumulation_steps, "
    "a smaller train.max_length, or quantization: {load_in_4bit: true}"
)
"""What to write where training runs out of memory and nothing was estimated."""
DOUBT = 1.25
"""The estimate's worst error on a CPU (benchmarks/README.md); an estimate beyond it is believed."""
NOTHING_BEFORE = memory.Baseline(0, 0)


@dataclass
class MemoryCheck:
    """An estimate, and the bytes that training took for the largest batch; None where that is not known.

    `before` is the memory of the process with its libraries; `seconds` are those of one forward and backward
    pass; the estimate is that of each of the `processes`.
    """

    estimate: Estimate
    processes: Processes = ONE
    before: memory.Baseline = NOTHING_BEFORE
    measured: int | None = None
    seconds: float | None = None

    @property
    def planned(self) -> int | None:
        """The bytes that training is estimated to take at its peak."""
        stages = self.estimate.memory
        return None if stages is None else stages.peaks["train"]

    def start(self) -> None:
        """Begin to measure; call it before weights are loaded."""
        import trl.trainer.sft_trainer  # noqa: F401  # memory of libraries is not training's

        self.before = memory.baseline(self.estimate.device.kind)

    def peak(self) -> int | None:
        """The most bytes that training took at once since `start`; None where an earlier peak hides them."""
        return memory.peak_above(self.before, self.estimate.device.kind)

    def facts(self) -> dict[str, Any]:
        """What the record says of memory, as plain JSON values, the run's own peak included."""
        peak, batch = self.peak(), self.estimate.batch
        return {
            "planned_bytes": self.planned,
            "probed_bytes": self.measured,
            "measured_bytes": peak,
            "planned_over_measured": round(self.planned / peak, 3) if self.planned and peak else None,
            "batch": {"rows": len(batch.rows), "length": batch.length},
            "seconds_for_batch": self.seconds,
            "device": asdict(self.estimate.device),
        }

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Turn memory that runs out into the error that says what would fit."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if shortage(error) != "memory":
                raise
            raise self.refusal() from error

    def refusal(self) -> MachineError:
        """The error that says what is needed, what is free, and what to write."""
        device = self.estimate.device
        limit = memory.tightest_limit() if device.kind == "cpu" else ""
        free = f"{size(device.bytes)} free on {device.name}{f' within {limit}' if limit else ''}"
        if self.planned is None:
            return MachineError(f"out of memory for the largest batch: {free}; {ADVICE}")
        changes = ", ".join(self._changes(self.planned)) or "the name of a smaller base model"
        return MachineError(f"out of memory: {size(self.planned)} needed, {free}; write {changes}")

    def _changes(self, planned: int) -> list[str]:
        """The changes that make training fit; where it was estimated to fit and does not, in a tenth less."""
        recipe, device = self.estimate.recipe, self.estimate.device
        sections = {name: section for name, section in recipe.sections.items() if name not in OTHER_STAGES}
        smaller = replace(device, bytes=min(device.bytes, planned * 9 // 10))
        training = replace(self.estimate, recipe=replace(recipe, sections=sections), device=smaller)
        return [change.write for change in fitting_changes(training)]


def check_memory(inputs: TrainerInputs, processes: Processes = ONE) -> MemoryCheck:
    """The memory check of a run in one of these processes, before weights are loaded.

    Raises:
        MachineError: a CPU's memory is too small by more than the estimate's error.
    """
    rows = prepared_stats(inputs.recipe, inputs.rows)
    each = estimate(inputs.recipe, inputs.meta_model, rows, device=device_here())
    check = MemoryCheck(*with_strategy(each, processes))
    device = check.estimate.device
    if device.kind != "cuda" and check.planned and check.planned > DOUBT * device.bytes:
        raise check.refusal()
    return check
