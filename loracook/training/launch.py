"""A stage in several processes of this machine, started by torchrun: torch's launcher, as accelerate's does.

What they say comes back as lines of JSON on standard output. Their standard input is a pipe: what is written
there asks them to stop after the current step, and its end says that this process is gone.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from loracook.errors import DivergedError, LoracookError, MachineError
from loracook.machine import signals
from loracook.progress import Kept
from loracook.store.files import write_atomic

MODULE = "loracook.rank"
JOB, RESULT, ERROR = "job", "result.json", "error-{}.json"
STOP = b"s"
DEAF = ("/bin/sh", "-c", "trap '' TERM INT HUP USR1; exec \"$@\"", "sh")
"""Starts a command that signals do not reach: a terminal, and Slurm, send them to every process of a job."""
PATIENCE = 5
"""Seconds that torchrun waits, once a process has failed, before it kills the others, deaf as they are."""
LOST = re.compile(r"gloo|NCCL|connection", re.IGNORECASE)
"""In the error of a process that has lost another one."""
ERRORS = (LoracookError, MachineError, DivergedError)


def launched(job: Any, count: int, progress: Kept) -> dict[str, Any]:
    """What a stage gives that so many processes run together.

    Args:
        job: what `loracook.rank` takes.
        count: how many processes.
        progress: takes what the first process says, each note once.

    Raises:
        LoracookError: what the first process that failed has raised.
        StoppedError: a signal came.
    """
    with tempfile.TemporaryDirectory(prefix="loracook-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps(job))
        code = _carried_out(folder, count, progress)
        if signals.stop_requested():
            raise signals.stopped_error()
        if code:
            raise _error(folder)
        result: dict[str, Any] = json.loads((folder / RESULT).read_text("utf-8"))
        return result


def _carried_out(folder: Path, count: int, progress: Kept) -> int:
    """Start the processes, hand on what they say, and give the exit code of the launcher."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
    here = "--local-addr=127.0.0.1"  # else they meet at this machine's name, which may lead nowhere
    options = ("--signals-to-handle=SIGQUIT", f"--shutdown-timeout={PATIENCE}", f"--log-dir={folder}", here)
    with subprocess.Popen(
        [*DEAF, *launcher, *options, "--module", MODULE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(count),
        start_new_session=True,
    ) as process:
        if process.stdin and process.stdout:
            _follow(process.stdout, process.stdin.fileno(), progress)
        return process.wait()


def _follow(said: IO[bytes], pipe: int, progress: Kept) -> None:
    """Hand on what the first process says; once it has started, a signal asks it to stop."""
    with ExitStack() as until_done:
        for line in said:
            match json.loads(line):
                case ["started"]:
                    until_done.enter_context(signals.deferring_first(lambda: os.write(pipe, STOP)))
                case ["note", text] if text not in progress.notes:
                    progress.note(text)
                case ["advance", done, total, text]:
                    progress.advance(done, total, text)


def _environment(count: int) -> dict[str, str]:
    """Ours, with the processor's threads divided; torchrun would leave each process one."""
    import torch

    return os.environ | {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}


def write_error(folder: Path, error: Exception, number: int) -> None:
    """Leave in the folder of a job what a process has failed with."""
    code = error.exit_code if isinstance(error, LoracookError) else None
    message = str(error) if code else f"{type(error).__name__}: {error}"
    write_atomic(folder / ERROR.format(number), json.dumps({"code": code, "message": message}))


def _error(folder: Path) -> Exception:
    """The error of the first process that failed by itself."""
    files = sorted(folder.glob(ERROR.format("*")), key=lambda path: path.stat().st_mtime_ns)
    errors = [json.loads(file.read_text("utf-8")) for file in files]
    own = [error for error in errors if error["code"] or not LOST.search(error["message"])]
    if not own:
        return MachineError(f"a training process was killed, perhaps for want of memory; {signals.RESUME}")
    said = own[0]
    kind = next((each for each in ERRORS if each.exit_code == said["code"]), RuntimeError)
    error: Exception = kind(said["message"])
    return error
