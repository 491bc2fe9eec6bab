"""Stopping on a signal without losing work: at once in general, at the end of a step while training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from loracook.errors import StoppedError

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
INTERRUPTED = 130
WORDS = "stopped; run the same command again to go on from here"

_held: list[bool] = [False]
_caught: list[int] = []


@contextmanager
def catching() -> Iterator[None]:
    """Obey the stopping signals for as long as the block lasts (main thread only).

    The process ends on the spot, as by kill -9, which every stage survives: an exception raised in the
    middle of a library's import is swallowed or garbled there. A signal that is ignored already, as SIGHUP
    under nohup, stays so.
    """
    terminal = os.dup(2)  # what standard error is before noise goes to a log

    def stop(number: int, frame: FrameType | None) -> None:
        _caught.append(number)
        if not _held[0] or len(_caught) > 1:
            os.write(terminal, f"{WORDS}\n".encode())
            os._exit(_code())

    obeyed = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in obeyed}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(terminal)
        _caught.clear()


@contextmanager
def held() -> Iterator[None]:
    """Let the first signal wait until the block asks with `caught`; the second still stops at once."""
    _held[0] = True
    try:
        yield
    finally:
        _held[0] = False


def caught() -> bool:
    """Whether a signal is waiting to be obeyed."""
    return bool(_caught)


def stopped() -> StoppedError:
    """The error that ends a run which a signal has stopped, with the exit code for that signal."""
    error = StoppedError(WORDS)
    error.exit_code = _code()
    return error


def _code() -> int:
    return INTERRUPTED if _caught[0] == signal.SIGINT else StoppedError.exit_code
