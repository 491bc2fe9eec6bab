"""`loracook` in processes of its own that need not import torch: each is forked from one that has.

A command of the suite takes some ten seconds of processor time to import torch, transformers, peft, trl and
loracook, and a second to do what a test is about. A process that is forked has its own memory, folder,
environment, signals and exit code. For each state of the variables that libraries read while they are imported
(HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE) there is a process to fork from. Tests of starting up start a command as
users do.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from subprocess import CompletedProcess
from types import MappingProxyType

import loracook

LIBRARIES = ("torch._dynamo", "datasets", "accelerate", "bitsandbytes", "peft", "trl.trainer.sft_trainer")
ROOT = Path(__file__).parents[1]
ASKING = threading.Lock()


class Process:
    """A command that is running, with the part of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        arguments: tuple[str | Path, ...],
        cwd: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        terminal: str = "",
    ) -> None:
        self.arguments = tuple(map(str, arguments))
        self.folder = Path(tempfile.mkdtemp())
        self.returncode: int | None = None
        request = {
            "arguments": self.arguments,
            "cwd": str(cwd),
            "environment": {**os.environ, **environment},
            "folder": str(self.folder),
            "terminal": terminal,
        }
        parent = _parent(tuple(sorted(item for item in os.environ.items() if item[0].startswith("HF_"))))
        assert parent.stdin
        assert parent.stdout
        with ASKING:
            parent.stdin.write(json.dumps(request) + "\n")
            parent.stdin.flush()
            self.pid = int(parent.stdout.readline())

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it wrote to standard output and error, once it has ended."""
        until = time.monotonic() + timeout
        while not (self.folder / "ended").exists():
            assert time.monotonic() < until, f"{self.arguments} runs for more than {timeout} s"
            time.sleep(0.01)
        self.returncode = int((self.folder / "ended").read_text())
        files = (self.folder / name for name in ("out", "err"))
        out, errors = (file.read_text("utf-8") if file.exists() else "" for file in files)
        shutil.rmtree(self.folder)
        return out, errors


class Terminal:
    """A command on a terminal of its own: what it shows can be waited for, and answered."""

    def __init__(self, *arguments: str | Path, cwd: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.process = Process(arguments, cwd, {"TERM": "dumb"}, os.ttyname(theirs))
        self.theirs = theirs  # open up to the end: it is no hang-up that the command has not opened it yet
        self.shown = ""

    def type(self, text: str) -> None:
        """Type something; Ctrl-C is \\x03 and Ctrl-D \\x04."""
        os.write(self.ours, text.encode())

    def until(self, text: str, timeout: float = 120) -> str:
        """What is shown up to a text that has not been waited for yet."""
        until = time.monotonic() + timeout
        while text not in self.shown:
            assert time.monotonic() < until, f"no {text!r} in {self.shown!r}"
            if select.select([self.ours], [], [], 0.1)[0]:
                self.shown += os.read(self.ours, 4096).decode("utf-8", "replace").replace("\r\n", "\n")
        before, _, self.shown = self.shown.partition(text)
        return before

    def end(self) -> int:
        """The exit code, once the command has ended."""
        self.process.communicate()
        os.close(self.ours)
        os.close(self.theirs)
        assert self.process.returncode is not None
        return self.process.returncode


def start(*arguments: str | Path, cwd: Path) -> Process:
    """`loracook` with those arguments, running in that folder."""
    return Process(arguments, cwd)


def run(
    *arguments: str | Path, cwd: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> CompletedProcess[str]:
    """The same to its end, with more variables in its environment."""
    process = Process(arguments, cwd, environment)
    out, errors = process.communicate()
    assert process.returncode is not None
    return CompletedProcess(process.arguments, process.returncode, out, errors)


@cache
def _parent(environment: tuple[tuple[str, str], ...]) -> subprocess.Popen[str]:
    """The process that commands are forked from, one for each environment that its libraries were imported in."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.processes"],
        cwd=ROOT,
        env={**os.environ, **dict(environment)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_end, parent)
    return parent


def _end(parent: subprocess.Popen[str]) -> None:
    with parent:
        parent.terminate()


def _serve() -> None:
    """Fork a command for every line of standard input, and answer with its process id."""
    for name in (*LIBRARIES, *(module.name for module in walk_packages(loracook.__path__, "loracook."))):
        import_module(name)
    _step_on_fake_tensors()
    gc.collect()
    gc.freeze()  # what has been imported is neither searched for garbage nor copied by the commands
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch(json.loads(line))


def _step_on_fake_tensors() -> None:
    """Let torch make ready once what every estimate needs."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from loracook.estimate.batches import Batch
    from loracook.estimate.fake_step import step_memory
    from tests.tiny_models import SMALL

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.for_model("opt", **SMALL["opt"]))
        tuned = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    step_memory(tuned, Batch((0, 1), 64, masked=True), checkpointing=True, autocast=torch.bfloat16)


def _watch(request: dict[str, object]) -> None:
    """Fork the command itself, and write its exit code to a file when it has ended."""
    folder = Path(str(request["folder"]))
    if not (pid := os.fork()):
        _become(request, folder)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    (folder / "ending").write_text(str(os.waitstatus_to_exitcode(status)))
    (folder / "ending").rename(folder / "ended")
    os._exit(0)


def _become(request: dict[str, object], folder: Path) -> None:
    """Be the command: its output, folder and environment, then its main function."""
    terminal = str(request["terminal"])
    if terminal:
        os.setsid()  # the terminal that a session opens first is the one whose Ctrl-C it gets
    files = (terminal,) * 3 if terminal else (os.devnull, folder / "out", folder / "err")
    for number, file in enumerate(files):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
    if terminal:  # what the streams know of the pipes that they were opened on is wrong now
        sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, (0, 1, 2), "rww")
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    sys.argv = ["loracook", *request["arguments"]]  # type: ignore[misc]
    if "LORACOOK_TEST_KILL_AT" in os.environ:
        from tests.crash import arm

        arm()
    sys.path.remove(str(ROOT))
    code = 1
    try:
        from loracook.__main__ import main

        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
