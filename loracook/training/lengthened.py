"""A finished training of the same recipe, but shorter, and whether a longer one resumes from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracook.recipe.derived import fixed_steps
from loracook.recipe.rules.schedule import NEED_EVAL_LOSS
from loracook.store.runs import records
from loracook.training.checkpoints import sealed, step

Section = Mapping[str, Any]
LENGTH = ("max_steps", "num_train_epochs")
ANY_LENGTH = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Schedules whose learning rate at a step is the same however many follow (transformers.optimization)."""
BEST = ("load_best_model_at_end", "metric_for_best_model", "early_stopping")


@dataclass(frozen=True)
class Shorter:
    """A finished training that a longer one repeats: its checkpoints to resume from, the newest first, or why
    there are none.
    """

    folder: Path
    checkpoints: tuple[Path, ...]
    why_not: str

    def __str__(self) -> str:
        """What is done, in words."""
        same = f"{self.folder.name}, which is the same but shorter"
        if self.why_not:
            return f"from the start, in a folder of its own and not from {same}: {self.why_not}"
        return f"from {self.checkpoints[0].name} of {same}"


def shorter(stage: str, train: Section, run: Path, *, digest: Callable[[Section], str]) -> Shorter | None:
    """The longest finished training in a run folder that a stage repeats before it goes further, if any.

    Args:
        stage: its name.
        train: the section with its length.
        run: the run folder.
        digest: gives the digest of the stage with another such section.
    """
    found: list[tuple[float, Path, Section, Any]] = []
    for folder, record in records(run).items() if run.is_dir() else ():
        section = _with_length_of(train, record["sections"].get("train"))
        if record["stage"] == stage and section and digest(section) == record["digest"]:
            found.append((_length(section)[1], folder, section, record["result"].get("steps")))
    if not found:
        return None
    _, folder, of_it, steps = max(found, key=lambda each: each[:2])
    if why_not := _why_not(of_it):
        return Shorter(folder, (), why_not)
    there = sealed(folder / "checkpoints")
    usable = tuple(path for path in there if step(path) != steps or _ends_as_it_goes(of_it, step(path)))
    last = "its checkpoint follows an evaluation at its end, which a longer run does not make"
    return Shorter(folder, usable, "" if usable else last if there else "it has no checkpoints")


def _with_length_of(train: Section, other: object) -> dict[str, Any] | None:
    """The section with the length of another, a stranger's perhaps; None unless it is shorter."""
    if not isinstance(other, Mapping):
        return None
    length = {key: other[key] for key in LENGTH if key in other}
    section = {key: value for key, value in train.items() if key not in LENGTH} | length
    if not length or not all(isinstance(value, int | float) for value in length.values()):
        return None
    (unit, ours), (its_unit, theirs) = _length(train), _length(section)
    return section if unit == its_unit and theirs < ours else None


def _length(train: Section) -> tuple[str, float]:
    """How long a training is: steps or epochs, and the number of them."""
    fixed = fixed_steps(train)
    return ("epochs", float(train.get("num_train_epochs", 0))) if fixed is None else ("steps", float(fixed))


def _why_not(train: Section) -> str:
    """Why a longer training does otherwise from its first steps on; "" where it does not."""
    schedule, by_steps = train["lr_scheduler_type"], train.get("eval_strategy") == "steps"
    if schedule in NEED_EVAL_LOSS or any(map(train.get, BEST)):
        return "what it does depends on its evaluations, of which there is one at the end"
    if schedule not in ANY_LENGTH:
        return f"with lr_scheduler_type: {schedule}, learning rates depend on the number of all steps"
    if schedule != "constant" and 0 < train["warmup_steps"] < 1:
        return f"warmup_steps: {train['warmup_steps']:g} is a share of all steps"
    if by_steps and _eval_steps(train) < 1:
        return f"evaluations after a share of all steps, {_eval_steps(train):g}, change the random numbers"
    return ""


def _ends_as_it_goes(train: Section, steps: int) -> bool:
    """Whether a training does at its end what a longer one does after the same step.

    An evaluation draws random numbers, and transformers makes one more at the end.
    """
    unit, length = _length(train)
    match train.get("eval_strategy", "no"):
        case "steps":
            return steps % _eval_steps(train) == 0
        case "epoch":
            return unit == "epochs" and length == int(length)
    return True


def _eval_steps(train: Section) -> float:
    return float(train.get("eval_steps", train["logging_steps"]))
