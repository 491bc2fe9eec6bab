"""Stopping on a signal without losing work: at once in general, at the end of a step while training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from loracook.errors import StoppedError

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
INTERRUPTED = 130

_held: list[bool] = [False]
_caught: list[int] = []


@contextmanager
def catching() -> Iterator[None]:
    """Turn the stopping signals into StoppedError for as long as the block lasts (main thread only)."""
    before = {number: signal.signal(number, _stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
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
    error = StoppedError("stopped; run the same command again to go on from here")
    if _caught and _caught[0] == signal.SIGINT:
        error.exit_code = INTERRUPTED
    return error


def _stop(number: int, frame: FrameType | None) -> None:
    _caught.append(number)
    if not _held[0] or len(_caught) > 1:
        raise stopped()
