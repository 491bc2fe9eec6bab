"""What the trials of a sweep can be compared by, and the value that a finished run has of it."""

from collections.abc import Iterator
from pathlib import Path

from loracook.errors import MachineError
from loracook.evaluation.gates import values_of
from loracook.planner import Plan
from loracook.recipe.derived import Data, evaluates
from loracook.recipe.rules.evaluate import LOSSES
from loracook.store.read_back import NUMBER
from loracook.store.record import read_metrics, read_result

OF_TRAINING = {"train_loss": "loss", "eval_loss": "eval_loss"}
"""The last losses of training: our name, and that in its log and record."""
STAGES = ("train", "evaluate")
"""The stages of a trial; what comes after them is made of the best one alone."""


def metrics(data: Data) -> list[str]:
    """The names of all that a run of a recipe measures while training and in its evaluation."""
    return list(_metrics(data))


def _metrics(data: Data) -> Iterator[str]:
    yield "train_loss"
    if evaluates(data):
        yield "eval_loss"
    evaluate = data.get("evaluate", {})
    if evaluate and "eval" in data["dataset"]:
        yield from LOSSES
    yield from evaluate.get("metrics", ())
    for name, rows in evaluate.get("also", {}).items():
        yield from (f"{name}.{metric}" for metric in (*LOSSES, *rows.get("metrics", ())))


def logged(data: Data) -> str:
    """The loss in the log of training that early stopping compares."""
    return "eval_loss" if evaluates(data) else "loss"


def value_of(planned: Plan, metric: str) -> float:
    """What a finished run has measured; raises MachineError where it has not."""
    folders = {stage.name: stage.folder for stage in planned.stages}
    found = _found(folders, metric)
    if found is None:
        raise MachineError(f"{metric} was not measured")
    return found


def _found(folders: dict[str, Path], metric: str) -> float | None:
    if metric in OF_TRAINING:
        losses: dict[str, float] = read_result(folders["train"], {"losses": {str: NUMBER}})["losses"]
        return losses.get(OF_TRAINING[metric])
    values = values_of(read_metrics(folders["evaluate"]), metric)
    return values and values[0]
