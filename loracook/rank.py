"""One of the processes that run a stage together: `python -m loracook.rank FOLDER`, as torchrun starts it.

The folder has the job. Standard input comes from the process that launched it: a byte asks to stop after the
current step, and its end says that nobody waits for the result.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loracook.machine.faults import machine_errors
from loracook.machine.signals import leave, request_stop
from loracook.progress import Progress, Silent
from loracook.recipe.recipe import Recipe
from loracook.stages import STAGES
from loracook.stages.base import Consent, Folders
from loracook.training import group
from loracook.training.launch import JOB, RESULT, write_error

if TYPE_CHECKING:
    from transformers import TrainerCallback


class Relayed:
    """Progress that another process shows."""

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def begin(self, stage: str) -> None:
        """Say that this process has started."""
        self._say("started")

    def end(self, record: dict[str, Any]) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Hand on a sentence."""
        self._say("note", text)

    def advance(self, done: int, total: int, text: str) -> None:
        """Hand on how far it is."""
        self._say("advance", done, total, text)

    def _say(self, *what: Any) -> None:
        print(json.dumps(what), file=self.out, flush=True)


def main(folder: Path) -> int:
    """Do the job in a folder, and leave its result or its error there; gives the exit code."""
    threading.Thread(target=_obey, args=(folder,), daemon=True).start()
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes where errors go
    try:
        if not group.is_first():
            return follow()
        progress = Relayed(said)
        progress.begin("")
        with group.followed():
            result = _done(pickle.loads((folder / JOB).read_bytes()), progress)
            (folder / RESULT).write_text(json.dumps(result, default=str), "utf-8")
    except Exception as error:  # noqa: BLE001  # the process that waits raises it
        traceback.print_exc()
        write_error(folder, error, group.rank())
        return 1
    return 0


def follow(callbacks: tuple[TrainerCallback, ...] = ()) -> int:
    """Do beside the first process what it does, until it says with which code to exit."""
    while not isinstance(job := group.next_job(), int):
        _done(job, Silent(), callbacks)
    return job


def _done(
    job: tuple[str, Recipe, Folders, Consent], progress: Progress, callbacks: tuple[TrainerCallback, ...] = ()
) -> dict[str, Any]:
    name, recipe, folders, consent = job
    stage, consent = STAGES[name], replace(consent, callbacks=callbacks)
    with machine_errors(name, folders.own, folders.cache, advice=stage.OUT_OF_MEMORY):
        return stage.run(recipe, folders, consent=consent, progress=progress)


def _obey(folder: Path) -> None:
    """Stop when asked to, and end with the process that launched this one, whose folder is left to us."""
    while os.read(0, 1):
        request_stop()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
