"""The stages of a run, in the order they are run in."""

from loracook.stages import evaluate, export, lm_eval, merge, push, train
from loracook.stages.base import Stage

STAGES: dict[str, Stage] = {
    "train": train,
    "evaluate": evaluate,
    "lm_eval": lm_eval,
    "merge": merge,
    "export": export,
    "push": push,
}
