"""What a run shows: each stage with its progress, and nothing of the noise from below."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from loracook.errors import clean
from loracook.progress import Progress
from loracook.store.lock import its_own
from loracook.units import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

NAME = 10
GAP = re.compile(r" {2,}(?:→ )?(?=\S)")
"""What separates two columns."""
EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class Lines:
    """Progress as plain lines, for pipes and logs: what is done, and a state now and then."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.stage, self.printed_at = out, "", time.monotonic()

    def begin(self, stage: str) -> None:
        """Remember the stage."""
        self.stage, self.printed_at = stage, time.monotonic()

    def end(self, record: dict[str, Any]) -> None:
        """Print how long the stage took."""
        self._print(f"{record['stage']:<{NAME}}done in {duration(record['seconds'])}")

    def note(self, text: str) -> None:
        """Print a sentence under the running stage."""
        self._print(f"{'':<{NAME}}{text}")

    def advance(self, done: int, total: int, text: str) -> None:
        """Print the state where the last line is half a minute old."""
        if time.monotonic() - self.printed_at >= EVERY:
            self.printed_at = time.monotonic()
            self._print(f"{self.stage:<{NAME}}{_counted(done, total)}{text}")

    def _print(self, text: str) -> None:
        with going_on_without_reader(self.out):
            print(clean(text), file=self.out, flush=True)


class Terminal:
    """Progress as one live line of rich on a terminal, notes above it."""

    def __init__(self, bars: Bars) -> None:
        self.bars, self.task = bars, bars.add_task("", visible=False, stage="", text="")

    def begin(self, stage: str) -> None:
        """Announce a stage."""
        self.bars.reset(self.task, total=None, visible=True, stage=f"{stage:<{NAME - 1}}", text="starting")

    def end(self, record: dict[str, Any]) -> None:
        """Print how long the stage took."""
        self.bars.update(self.task, visible=False)
        self._print(f"{record['stage']:<{NAME}}done in {duration(record['seconds'])}")

    def note(self, text: str) -> None:
        """Print a sentence under the running stage."""
        self._print(f"{'':<{NAME}}{text}")

    def advance(self, done: int, total: int, text: str) -> None:
        """Redraw the live line; without a total the bar pulses."""
        state = clean(f"{_counted(done, total)}{text}")
        self.bars.update(self.task, completed=done, total=total or None, text=state, refresh=True)

    def _print(self, text: str) -> None:
        text = _wrapped(clean(text), self.bars.console.width)
        self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)


def wants_color(out: TextIO) -> bool:
    """Whether to color an output: NO_COLOR and FORCE_COLOR decide, then whether it is a terminal that can."""
    return "NO_COLOR" not in os.environ and ("FORCE_COLOR" in os.environ or _can_redraw(out))


def _can_redraw(out: TextIO) -> bool:
    return out.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def screen(out: TextIO) -> Iterator[Progress]:
    """The progress of a run on the user's own output: a live line on a terminal, else plain lines."""
    if not _can_redraw(out) or os.environ.get("CI"):  # some CI services log what goes to a terminal
        yield Lines(out)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    one_line = Column(no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.fields[text]}", markup=False, table_column=one_line)
    stage = TextColumn("{task.fields[stage]}", markup=False)
    bars = Bars(
        *(stage, BarColumn(24), text),
        console=Console(file=out),
        transient=True,
        redirect_stdout=False,  # noise goes to the log, not above the bar
        redirect_stderr=False,
    )
    with bars:
        yield Terminal(bars)


@contextmanager
def going_on_without_reader(out: TextIO) -> Iterator[None]:
    """Let what is printed go nowhere once its reader has gone, as `head` does: a run still has to end."""
    try:
        yield
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), out.fileno())


def show(lines: Iterable[str]) -> None:
    """Print lines; on a terminal those that are too long wrap below their last column."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0  # a pipe gets whole lines
    with going_on_without_reader(sys.stdout):
        _echo(lines, columns)


def show_as_it_is(text: str) -> None:
    """Print a text without wrapping its lines, so that it can be copied."""
    with going_on_without_reader(sys.stdout):
        _echo(text.splitlines(), 0)


def _echo(lines: Iterable[str], columns: int) -> None:
    for line in map(clean, lines):
        click.echo(_wrapped(line, columns))


def _wrapped(line: str, columns: int) -> str:
    """A line that is longer than so many columns in several, below its last column; 0 for no limit."""
    if not len(line) > columns > 0:
        return line
    gap = max((match.end() for match in GAP.finditer(line[: columns * 2 // 3])), default=2)
    return textwrap.fill(line, columns, subsequent_indent=" " * gap, break_on_hyphens=False)


def _counted(done: int, total: int) -> str:
    return f"{done}/{total}  " if total else ""


@contextmanager
def noise_to(log: Path) -> Iterator[TextIO]:
    """Send all that this process and its libraries print to a log file; gives the user's own standard output.

    File descriptors are redirected rather than sys.stdout, since native code writes too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(log, "a", opener=its_own) as file, os.fdopen(os.dup(1), "w", encoding="utf-8") as own:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield own
        finally:
            with suppress(OSError):  # on a full disk noise is lost; the error is still to be shown
                sys.stdout.flush()
                sys.stderr.flush()
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
