"""Calls that render untrusted templates: in a process of their own, with limits on time, memory and text."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import resource
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from loracook.errors import LoracookError
from loracook.machine.limits import limit, limit_growth

SECONDS = 2
"""Processor time of one call, beyond the second that the kernel rounds up to."""
PATIENCE = 60
"""Seconds on the clock, for a machine that has more to do."""
MEMORY = 768 * 2**20
"""Bytes that calls may take beyond what this process had when the first was made."""
TEXT, GROWTH = 2**20, 16
"""A result has as many characters at most, and this many times those of the call."""


class RenderingError(ValueError):
    """A template raised an error, or refused what it was given."""


class RunawayError(LoracookError):
    """Rendering takes too much time, memory or text."""


def limited(function: Callable[..., Any], **arguments: Any) -> Any:
    """What `function` returns, as JSON has it, called in a process of its own.

    Raises:
        RenderingError: the function raised an error.
        RunawayError: it took more than the limits allow.
    """
    own = (os.getpid(), threading.get_ident())
    worker = _workers.get(own) or _workers.setdefault(own, _fork())
    try:
        request = pickle.dumps((function, arguments))
    except RecursionError as error:
        raise RenderingError("nested too deeply") from error
    try:
        answer = worker.ask(request)
    except (OSError, RunawayError) as error:
        del _workers[own]
        worker.end()
        raise RunawayError(str(error)) from error
    if "error" in answer:
        raise RenderingError(answer["error"])
    return answer["result"]


@dataclass(frozen=True)
class _Worker:
    process: int
    connection: Connection

    def ask(self, request: bytes) -> dict[str, Any]:
        self.connection.send_bytes(request)
        try:
            if not self.connection.poll(PATIENCE):
                raise RunawayError("rendering takes too long")
            answer: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except EOFError as error:  # the kernel ended it
            raise RunawayError(f"rendering takes more than {SECONDS} s") from error
        if "runaway" in answer:
            raise RunawayError(answer["runaway"])
        return answer

    def end(self) -> None:
        self.connection.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


_workers: dict[tuple[int, int], _Worker] = {}
"""One for each process and thread that renders: a fork of a process must not use the one of its parent."""


def _fork() -> _Worker:
    """A copy of this process, which has imported what calls need, that does nothing but answer them."""
    ours, theirs = Pipe()
    with warnings.catch_warnings():  # Python 3.12 warns where there are threads, whose locks no call takes
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        _serve(theirs)
    theirs.close()
    return _Worker(process, ours)


def _serve(connection: Connection) -> NoReturn:
    """Answer calls until the parent has ended."""
    try:
        _let_go_of_everything_but(connection.fileno())
        limit_growth(MEMORY)
        limit(resource.RLIMIT_FSIZE, 0)
        limit(resource.RLIMIT_CORE, 0)
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))
    finally:
        os._exit(0)


def _let_go_of_everything_but(descriptor: int) -> None:
    """Close what the parent has open, such as the lock of a run, and leave its signals to it."""
    os.closerange(0, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _answer(request: bytes) -> bytes:
    function, arguments = pickle.loads(request)
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + SECONDS)
    try:
        answer = json.dumps({"result": function(**arguments)})
    except MemoryError:
        answer = json.dumps({"runaway": "rendering takes too much memory"})
    except Exception as error:  # noqa: BLE001, RUF100  a template may raise anything; the parent tells it
        answer = json.dumps({"error": str(error) or type(error).__name__})
    if len(answer) > TEXT + GROWTH * len(request):
        answer = json.dumps({"runaway": "rendering makes too much text"})
    return answer.encode()
