"""The first steps of a training once more, and their losses beside those that it logged."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loracook import data, model
from loracook.data.changed_rows import changed_row
from loracook.errors import LoracookError, MachineError, shorten
from loracook.estimate.memory import autocast
from loracook.machine.devices import computed_on
from loracook.machine.versions import WEIGHTS, versions
from loracook.progress import Progress
from loracook.recipe.derived import first_rows
from loracook.recipe.layers import with_value
from loracook.recipe.recipe import Recipe
from loracook.report.curves import is_finite, read_log
from loracook.stages import STAGES
from loracook.store.files import sha256
from loracook.store.read_back import NUMBER, check_shape
from loracook.store.record import RECORD, read_record
from loracook.training.trainer import TrainerInputs, build, read_inputs

LOG = "log.jsonl"
SHAPE = {
    "read": [[str]],
    "result": {
        "data": {"digest": str}, "base_commit": str | None, "tokenizer_commit": str | None,
        "computed_on": {str: str | int},
    },
}  # fmt: skip
BOUND, SHORT_BOUND = 1e-3, 3e-2
"""How far losses may differ, relative to them, where sums are taken in another order: in float32, and in
dtypes of 16 bits.
"""
HASH = 12
"""Characters of a hash that are shown."""


@dataclass(frozen=True)
class Repeated:
    """Losses by step, as they were logged and as they are now, and how far they may differ, relative to them:
    not at all where machine and versions decide the same bits. `differs` says which do not.
    """

    was: Mapping[int, float]
    now: Mapping[int, float]
    bound: float
    differs: tuple[str, ...]

    def difference(self, step: int) -> float:
        """The difference of the losses of a step, relative to the one that was logged; infinite for NaN."""
        difference = abs(self.now[step] - self.was[step]) / max(abs(self.was[step]), 1e-9)
        return math.inf if math.isnan(difference) else difference

    @property
    def largest_difference(self) -> float:
        """The largest of all steps."""
        return max(map(self.difference, self.was))


def repeat(recipe: Recipe, train: Path, *, steps: int, cache: Path, progress: Progress) -> Repeated:
    """Train the first `steps` of a finished training again, and on to the next one that was logged.

    Learning rates are those of the whole training, and nothing is written into the run folder.

    Raises:
        LoracookError: what decides the weights is not as it was: a file, a row, the base model's commit.
    """
    recipe, record = _training_alone(recipe), _read(train)
    logged = _logged(train, steps)
    others = [*model.files(recipe), *model.start_files(recipe), *model.tokenizer_files(recipe)]
    _refuse(train, _changed_files(others, record))
    inputs = read_inputs(recipe, cache, progress, first=first_rows(recipe.sections))
    _refuse(train, _changed_inputs(inputs, record, cache))
    now = _first_losses(inputs, max(logged), cache=cache, progress=progress)
    if missing := [step for step in logged if step not in now]:
        message = f"{train / LOG} has the loss of step {missing[0]}, which training does not log"
        raise LoracookError(f"{message}; name the recipe as it was run")
    differs = tuple(_differs(record))
    exact = not differs and "threads" in computed_on()
    return Repeated(logged, now, 0.0 if exact else _bound(recipe), differs)


def _training_alone(recipe: Recipe) -> Recipe:
    """The recipe with what training reads alone, and no trackers."""
    sections = {name: recipe[name] for name in ("version", *STAGES["train"].READS) if name in recipe}
    return replace(recipe, sections=with_value(sections, ("train", "report_to"), "none"))


def _read(train: Path) -> dict[str, Any]:
    record = read_record(train)
    try:
        check_shape(record, SHAPE)
        dict(record["read"])  # which pairs alone make
    except ValueError as error:
        message = f"{train / RECORD} does not say what training read: an earlier version of loracook wrote it"
        raise LoracookError(message) from error
    return record


def _logged(train: Path, steps: int) -> dict[int, float]:
    """The losses that were logged of the first steps; raises MachineError for what training logs never."""
    entries = read_log(train / LOG)
    losses = {entry["step"]: entry["loss"] for entry in entries if isinstance(entry.get("loss"), NUMBER)}
    if not all(step >= 1 and is_finite(loss) for step, loss in losses.items()):
        raise MachineError(f"{train / LOG} is corrupt; run its recipe again")
    if not losses:
        raise LoracookError(f"{train / LOG} has no losses to compare with; set train.logging_steps: 1")
    last = next((step for step in losses if step >= steps), max(losses))
    return {step: loss for step, loss in losses.items() if step <= last}


def _refuse(train: Path, changes: Iterable[str]) -> None:
    """Raise LoracookError where something has changed."""
    if changed := "; ".join(changes):
        raise LoracookError(f"{train.name} cannot be repeated: {changed}; change it back")


def _changed_files(files: Iterable[Path], record: Mapping[str, Any]) -> Iterator[str]:
    """What training read of these files and is another now, in words."""
    was = dict(record["read"])
    for path in files:
        digest = sha256(path)
        if [path.name, digest] not in record["read"]:
            earlier = shorten(was.get(path.name, "not there"), HASH)
            yield f"{path.name} was {earlier}, now {shorten(digest, HASH)}"


def _changed_inputs(inputs: TrainerInputs, record: Mapping[str, Any], cache: Path) -> Iterator[str]:
    """The commits of base model and tokenizer, data files and the first row that are others now, in words."""
    result, digest = record["result"], record["result"]["data"]["digest"]
    was = {"base model": result["base_commit"], "tokenizer": result.get("tokenizer_commit")}
    for what, now in (("base model", inputs.commit), ("tokenizer", inputs.tokenizer_commit)):
        if now != was[what]:
            yield f"the {what}'s commit was {was[what]}, now {now}"
    if inputs.rows.digest != digest:
        yield from _changed_files(data.files(inputs.recipe), record)
        row = changed_row(inputs.rows, digest, tokenizer=inputs.tokenizer, cache=cache)
        yield row or "the prepared rows are others, and the earlier ones are not in the cache any more"


def _differs(record: Mapping[str, Any]) -> Iterator[str]:
    """What decides the last bits and is another here than where training ran, in words."""
    was, now = record["versions"] | record["result"]["computed_on"], versions() | computed_on()
    for name in (*computed_on(), *WEIGHTS):
        if was.get(name) != now.get(name):
            yield f"{name} was {was.get(name)}, now {now.get(name)}"


def _bound(recipe: Recipe) -> float:
    short = autocast(recipe["train"]) is not None or recipe["base_model"].get("dtype") != "float32"
    return SHORT_BOUND if short else BOUND


def _first_losses(inputs: TrainerInputs, last: int, *, cache: Path, progress: Progress) -> dict[int, float]:
    """The losses that training logs up to a step, at which it ends."""
    from loracook.training.callbacks import UntilStep

    losses: dict[int, float] = {}

    def take(step: int, loss: float) -> None:
        losses[step] = loss
        progress.advance(step, last, f"loss {loss:.4f}")
        if step == last:
            raise _EnoughError

    with tempfile.TemporaryDirectory(prefix="loracook-") as folder:
        sft = build(inputs, Path(folder), cache=cache, progress=progress)
        sft.args.save_strategy = "no"
        sft.add_callback(UntilStep(last, take))
        with suppress(_EnoughError):
            sft.train()
    return losses


class _EnoughError(Exception):
    """Ends training after the last step that is compared."""
