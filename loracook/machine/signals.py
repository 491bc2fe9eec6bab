"""Ending a process: on a signal without losing work, at once or at the end of a step, and in the end."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from loracook.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
INTERRUPTED = 130
RESUME = "run the same command again to resume"
STOPPED = f"stopped; {RESUME}"
STOPPING = "stopping once this step is saved; Ctrl-C again stops at once, without saving"
CLEAR_LINE = "\r\x1b[2K\x1b[?25h"
"""Clears the live line and shows the cursor, which rich hides."""

UNHANDLED = 1.0
"""Seconds after which the main thread is taken to be inside a library, where no handler of Python's runs."""

_deferred: list[Callable[[], Any] | None] = [None]
_stopping = [STOPPING]
_received: list[int] = []


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Exit when one of SIGNALS arrives while the block runs (main thread only).

    The process exits on the spot, as with kill -9, which every stage survives; an exception raised in the
    middle of a library's import would be swallowed or garbled. A signal that is already ignored, as SIGHUP
    is under nohup, stays ignored.
    """
    terminal = os.dup(2)  # standard error as it is before libraries' output goes to the log

    def handle(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        deferred = _deferred[0]
        at_once = deferred is None or len(_received) > 1
        with suppress(OSError):  # the terminal may be gone, which SIGHUP says
            message = STOPPED if at_once else _stopping[0]
            os.write(terminal, f"{CLEAR_LINE if os.isatty(terminal) else ''}{message}\n".encode())
        if deferred is None or at_once:
            os._exit(_exit_code())
        deferred()

    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in handled}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_exit_if_stuck, args=(reader, handle), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(writer)
        os.close(terminal)
        _received.clear()


def _exit_if_stuck(arrived: int, handle: Callable[[int, FrameType | None], Any]) -> None:
    """Exit for a signal that the main thread does not handle, as while it waits for another process.

    A step that is to end first may be long: only the second signal counts there.
    """
    waiting = False
    while byte := os.read(arrived, 1):
        if signal.getsignal(byte[0]) is not handle:
            continue
        time.sleep(UNHANDLED)
        if byte[0] in _received or signal.getsignal(byte[0]) is not handle:  # the block may have ended
            continue
        if waiting:
            _received.append(byte[0])  # so that it is the second
        if waiting or _deferred[0] is None:
            handle(byte[0], None)
        waiting = True
    os.close(arrived)


def _leave_alone() -> None:
    """Let signals to a forked process be its own."""
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave_alone)


@contextmanager
def on_interrupt(handle: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle Ctrl-C in another way while the block runs (main thread only)."""
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def deferring_first(then: Callable[[], Any] = lambda: None, saying: str = STOPPING) -> Iterator[None]:
    """Defer the first signal until the block checks `stop_requested`; say so, and call a function for it.

    A second one still exits at once. Blocks may be nested: the function is that of the innermost one.
    """
    before = _deferred[0], _stopping[0]
    _deferred[0], _stopping[0] = then, saying
    try:
        yield
    finally:
        _deferred[0], _stopping[0] = before


def request_stop() -> None:
    """Do as for a signal: another process of this training has received one."""
    _received.append(signal.SIGTERM)
    if _deferred[0] is None:
        os._exit(_exit_code())


def stop_requested() -> bool:
    """Whether a deferred signal has arrived."""
    return bool(_received)


def stopped_error(saying: str = STOPPED) -> StoppedError:
    """The error that ends a run stopped by a deferred signal, with the exit code for that signal."""
    error = StoppedError(saying)
    error.exit_code = _exit_code()
    return error


def _exit_code() -> int:
    """Ctrl-C's own where it came first, else that of all other signals; another process may have got one."""
    return INTERRUPTED if _received[:1] == [signal.SIGINT] else StoppedError.exit_code


def leave(code: int) -> NoReturn:
    """Exit with a code; where processes have trained together, without the destructors of torch's libraries.

    One in thirty such processes aborted in them on a busy CPU, upon which torchrun ended the others (torch
    2.13: "terminate called without an active exception").
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized():
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
