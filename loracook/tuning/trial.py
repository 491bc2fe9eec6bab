"""A trial of a recipe's settings: `python -m loracook.tuning.trial FOLDER`, in a process of its own.

The folder has the job. The trial is said on standard output as lines of JSON; the end of standard input says
that nobody waits for it.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import threading
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from loracook.errors import LoracookError
from loracook.machine.faults import shortage
from loracook.machine.memory import keep_freed_memory
from loracook.progress import Silent
from loracook.recipe.derived import first_rows
from loracook.recipe.layers import with_value
from loracook.recipe.recipe import Recipe
from loracook.tuning.measured import ENOUGH, PROVEN, Trial

JOB = "job"
UNTRIED = (
    "early_stopping", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "eval_strategy",
    "eval_steps", "eval_delay", "eval_on_start", "eval_packing", "save_strategy", "save_steps",
)  # fmt: skip
"""Keys of `train` for what happens between steps."""
READ = ("version", "base_model", "tokenizer", "dataset", "template", "quantization", "lora", "train")


@dataclass(frozen=True)
class Job:
    """What to try: a recipe's settings, for so many seconds of steps once the first ones are done."""

    recipe: Recipe
    cache: Path
    seconds: float


def steps_alone(recipe: Recipe) -> Recipe:
    """The recipe with what its optimizer steps read, each of them logged and nothing between them."""
    sections = {name: recipe[name] for name in READ if name in recipe}
    left = {name: value for name, value in recipe["train"].items() if name not in UNTRIED}
    every = {"report_to": "none", "logging_strategy": "steps", "logging_steps": 1, "save_strategy": "no"}
    return replace(recipe, sections=with_value(sections, ("train",), left | every))


def main(folder: Path) -> int:
    """Do the job in a folder, and say what was measured; gives the exit code."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes where errors go
    keep_freed_memory()
    try:
        trial = _tried(pickle.loads((folder / JOB).read_bytes()), folder)
    except Exception as error:  # noqa: BLE001  # the process that waits says it in its ladder
        traceback.print_exc()
        trial = Trial(failure=_said(error))
    print(json.dumps(vars(trial)), file=said, flush=True)
    return 0


def _tried(job: Job, folder: Path) -> Trial:
    """The trial of a job: the largest batch, then steps until their speed is known or time is up."""
    from loracook.estimate.estimate import estimate
    from loracook.estimate.rows import prepared_stats
    from loracook.machine.devices import device_here
    from loracook.training.callbacks import BeforeTraining
    from loracook.training.largest_batch import measure
    from loracook.training.memory_check import MemoryCheck
    from loracook.training.trainer import build, read_inputs
    from loracook.tuning.steps import Steps

    inputs = read_inputs(job.recipe, job.cache, Silent(), first=first_rows(job.recipe.sections))
    rows = prepared_stats(job.recipe, inputs.rows)
    check = MemoryCheck(estimate(job.recipe, inputs.meta_model, rows, device=device_here()))
    check.start()
    sft = build(inputs, folder, cache=job.cache, progress=Silent())
    if rows.exact:
        sft.add_callback(BeforeTraining(lambda _: measure(sft, check)))
    steps = Steps(sft, job.seconds, proven=PROVEN, enough=ENOUGH)
    sft.add_callback(steps)
    sft.train()
    peaks = [peak for peak in (check.measured, check.peak()) if peak is not None]
    share = inputs.rows.statistics["trained_share"]
    return replace(
        steps.trial(), trained_share=share, peak=max(peaks, default=None), ready=check.seconds or 0.0
    )


def _said(error: Exception) -> str:
    """What a trial failed with, in the words of its row."""
    if shortage(error) == "memory":  # which looks at its cause, too
        return "out of memory"
    name = "" if isinstance(error, LoracookError) else f"{type(error).__name__}: "
    return f"{name}{error}".splitlines()[0]


def _end_with_parent(folder: Path) -> None:
    """End once the process that started this one has gone, whose folder is left to us."""
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
