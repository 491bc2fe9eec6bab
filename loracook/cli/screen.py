"""What a run shows: the plan, each stage with its progress, and nothing of the noise from below."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from loracook.errors import clean

BAR = 24
NAME = 10
EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal to redraw one on."""


class Screen:
    """Draws progress on the user's own standard output, while that of libraries goes to a log."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.terminal = out.isatty()
        self.stage = ""
        self.drawn = ""
        self.said_at = time.monotonic()

    def begin(self, stage: str) -> None:
        """Announce a stage."""
        self.stage, self.said_at = stage, time.monotonic()
        self._draw(f"{stage:<{NAME}}starting")

    def end(self, record: dict[str, Any]) -> None:
        """Say that a stage is done, and how long it took."""
        from loracook.units import duration

        self.line(f"{record['stage']:<{NAME}}done in {duration(record['seconds'])}")

    def note(self, text: str) -> None:
        """Print a sentence under the running stage."""
        self.line(f"{'':<{NAME}}{text}")

    def advance(self, done: int, total: int, text: str) -> None:
        """Redraw the progress, or say it in a line now and then where there is no terminal."""
        bar = ("█" * round(done / total * BAR)).ljust(BAR, "░") + " " if total else ""
        state = f"{done}/{total}  {text}" if total else f"{done} {text}" if done else text
        if self.terminal:
            self._draw(f"{self.stage:<{NAME}}{bar}{state}")
        elif time.monotonic() - self.said_at >= EVERY:
            self.said_at = time.monotonic()
            self.line(f"{self.stage:<{NAME}}{state}")

    def line(self, text: str = "") -> None:
        """Print a line above whatever is being redrawn."""
        self.erase()
        print(clean(text), file=self.out, flush=True)

    def _draw(self, text: str) -> None:
        if not self.terminal:
            return
        self.erase()
        self.drawn = clean(text)[: os.get_terminal_size(self.out.fileno()).columns - 1]
        print(self.drawn, end="", file=self.out, flush=True)

    def erase(self) -> None:
        """Remove whatever is being redrawn."""
        if self.drawn:
            print("\r" + " " * len(self.drawn) + "\r", end="", file=self.out, flush=True)
            self.drawn = ""


@contextmanager
def noise_to(log: Path) -> Iterator[TextIO]:
    """Send all that this process and its libraries print to a log file; gives the user's own standard output.

    File descriptors are exchanged rather than sys.stdout, since native code writes too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("a") as file, os.fdopen(os.dup(1), "w", encoding="utf-8") as own:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield own
        finally:
            with suppress(OSError):  # on a full disk noise is lost; what went wrong is to be said still
                sys.stdout.flush()
                sys.stderr.flush()
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
