"""Declarative recipes for LoRA fine-tuning with Hugging Face TRL.

In Python:

    recipe = loracook.load("recipes/quickstart.yaml", ["train.max_steps=20"])
    loracook.plan(recipe).to_do      # the stages still to be run
    loracook.run(recipe)             # run them; gives their records
    loracook.trainer(recipe)         # or only the configured SFTTrainer, for a loop of one's own
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError, RecipeError
from loracook.store.folders import RUNS

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import SFTTrainer

    from loracook.planner import Plan
    from loracook.recipe.recipe import Recipe

# Where the package `kernels` is there, transformers 5.23 and bitsandbytes 0.50 download code of the hub and
# run it unasked, for some models and on some CPUs.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # which Python takes as "not there"

__version__ = "0.1.0"
__all__ = ["LoracookError", "RecipeError", "load", "plan", "run", "trainer"]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load(
    file: str | Path,
    overrides: Sequence[str] = (),
    *,
    allow_paths: Sequence[str | Path] = (),
    allow_code: Sequence[str] = (),
) -> Recipe:
    """The recipe in a file, complete and checked.

    Args:
        file: a YAML recipe.
        overrides: values to change, each as `train.learning_rate=1e-4`.
        allow_paths: folders outside of its repository that the recipe may read, besides those that
            LORACOOK_ALLOW_PATHS and the user's configuration file name.
        allow_code: base models whose own code may be run, each as `organization/name@commit`.

    Raises:
        RecipeError: with every problem of the recipe, each at its line and column.
    """
    from loracook.recipe.allowed import allowed
    from loracook.recipe.recipe import load

    return load(file, overrides, allowed(allow_paths, allow_code))


def plan(recipe: Recipe, runs: str | Path = RUNS) -> Plan:
    """What a run would do below the folder `runs`; changes nothing and loads no heavy library.

    Raises:
        RecipeError: a local file that the recipe names is not there.
    """
    from loracook.planner import plan

    return plan(recipe, Path(runs))


def run(
    recipe: Recipe,
    runs: str | Path = RUNS,
    *,
    push: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, dict[str, Any]]:
    """Run what is not done of a recipe and return the records of its stages by name.

    Under torchrun and other launchers, every process calls this: all of them train, and the first one does
    the rest; the others return nothing.

    Args:
        recipe: what `load` gave.
        runs: the folder that holds one run folder for each recipe name.
        push: whether the recipe may upload to the hub.
        overwrite: whether it may upload into a repository that already holds files.
        callbacks: handed to the SFTTrainer; they change no digest, so training that is done stays done.

    Raises:
        LoracookError: something the user can fix; its `exit_code` says of which kind.
    """
    from loracook.planner import plan
    from loracook.progress import Silent
    from loracook.rank import follow
    from loracook.runner import carry_out
    from loracook.stages.base import Consent
    from loracook.training import group
    from loracook.training.processes import Processes
    from loracook.views.report import reported

    group.join()
    if not group.is_first():
        if follow(tuple(callbacks)):
            raise LoracookError("the first process has failed, and says with what")
        return {}
    consent = Consent(push, overwrite, tuple(callbacks), Processes(group.size()))
    with group.followed():
        group.meet()
        planned, progress = plan(recipe, Path(runs)), Silent()
        with reported(planned, progress):
            return carry_out(planned, consent=consent, progress=progress)


def trainer(recipe: Recipe, output: str | Path | None = None) -> SFTTrainer:
    """The recipe as a configured TRL SFTTrainer that was not run: add callbacks, or call its train().

    Args:
        recipe: what `load` gave.
        output: the folder for the trainer's checkpoints; by default `trainer` in the recipe's run folder.

    Raises:
        RecipeError: the recipe does not fit its model or its data.
        MachineError: the folder holds a link, which the trainer would follow.
    """
    from loracook.progress import Silent
    from loracook.store.folders import default_cache
    from loracook.store.run_folder import check_contents, check_run_folder
    from loracook.training.trainer import trainer

    folder = RUNS / recipe.name / "trainer" if output is None else Path(output)
    if output is None:
        check_run_folder(folder.parent)
    else:
        check_contents(Path(os.path.realpath(output)))
    return trainer(recipe, folder, cache=default_cache(), progress=Silent())
