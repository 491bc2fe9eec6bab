"""A trial in a fresh process, as the process that waits for it sees it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from loracook.machine import signals
from loracook.machine.devices import visible_gpus
from loracook.tuning.measured import Trial
from loracook.tuning.trial import JOB, Job

MODULE = "loracook.tuning.trial"
STOPPING = "stopping; Ctrl-C again stops at once"
TOO_LONG = "takes too long: stopped"
KILLED = "was killed, perhaps for want of memory"


def tried(job: Job, longest: float) -> Trial:
    """The trial of a job; one that lasts more than so many seconds, its start included, is ended.

    A signal ends the trial, too, also one that was deferred before: `signals.stop_requested` says so then.
    """
    with tempfile.TemporaryDirectory(prefix="loracook-") as name:
        folder, late = Path(name), list[bool]()
        (folder / JOB).write_bytes(pickle.dumps(job))
        with subprocess.Popen(
            [sys.executable, "-m", MODULE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # a terminal's Ctrl-C is for the process that waits
        ) as process:

            def end() -> None:
                late.append(True)
                process.kill()

            timer = threading.Timer(longest, end)
            timer.start()
            with signals.deferring_first(process.kill, STOPPING):
                if signals.stop_requested():  # while the process was started
                    process.kill()
                said = process.stdout.read() if process.stdout else b""
            timer.cancel()
        if said:
            return Trial.of(json.loads(said))
        killed = KILLED if process.returncode == -signal.SIGKILL else f"ended with {process.returncode}"
        return Trial(failure=TOO_LONG if late else killed)


def _environment() -> dict[str, str]:
    """Ours, with the first GPU alone: a trial is of one process."""
    if visible_gpus() < 2:
        return dict(os.environ)
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return os.environ | {"CUDA_VISIBLE_DEVICES": first}
