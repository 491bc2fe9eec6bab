"""How a command ends: its exit code, and the message for what went wrong."""

import io
import os
import select
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from loracook.errors import LoracookError, MachineError, RecipeError, clean, clean_lines, reworded, shorten
from loracook.machine.signals import INTERRUPTED

GONE = "the working folder does not exist any more; go to another one: cd FOLDER"
WINDOWS = "loracook does not run on Windows; use WSL 2 (Windows Subsystem for Linux)"


def ending(command: Callable[[], Any], platform: str = sys.platform) -> int:
    """Run a command and return its exit code; what went wrong is printed to standard error."""
    if platform == "win32":  # no flock, no SIGHUP, no /dev/null
        return _failed(MachineError(WINDOWS))
    try:
        os.getcwd()
    except FileNotFoundError:
        return _failed(MachineError(GONE))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the terminal's or pipe's encoding is poor
    try:
        result = command()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError as error:
        if not (_is_ours(error) and _output_is_closed()):
            return _bug(error)
        sys.stderr.close()  # else Python complains at exit that it cannot flush standard output
        return 0
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  # anything else is a bug; its traceback is saved to a file
        known = error if isinstance(error, LoracookError) else _machine_error(error)
        return _bug(error) if known is None else _failed(known)
    return result if isinstance(result, int) else 0


def _is_ours(error: BrokenPipeError) -> bool:
    """Whether an error comes from what a command prints, not from a pipe to another process."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__


def _output_is_closed() -> bool:
    """Whether the reader of our standard output has gone, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always reported
    return bool(poll.poll(0))


def _machine_error(error: BaseException) -> LoracookError | None:
    """An error of this machine as such; None when it is something else, as a missing module of ours is."""
    from loracook.machine.faults import machine_fault
    from loracook.machine.versions import INSTALL
    from loracook.store.folders import default_cache

    message = machine_fault(error, [Path(), default_cache()])
    if isinstance(error, ImportError) and not message:
        if (error.name or "").split(".")[0] == "loracook":
            return None
        if isinstance(error, ModuleNotFoundError):
            return MachineError(f"{error.name} is not installed; {INSTALL}")
        return MachineError(f"a library cannot be used: {shorten(' '.join(str(error).split()), 250)}")
    return reworded(MachineError(message), error) if message else None


def _failed(error: LoracookError) -> int:
    """Print the error, a recipe's with a line for each problem, and return its exit code."""
    notes = [clean(note) for note in getattr(error, "__notes__", ())]
    if isinstance(error, RecipeError):  # its lines are short ones of their own
        click.echo("\n".join([str(error), *notes]), err=True)
    else:
        click.echo("".join([clean(str(error)), *(f" ({note})" for note in notes)]), err=True)
    return error.exit_code


def _bug(error: BaseException) -> int:
    with tempfile.NamedTemporaryFile("w", prefix="loracook-", suffix=".traceback", delete=False) as file:
        file.write(clean_lines("".join(traceback.format_exception(error))))
    message = shorten(clean(f"{type(error).__name__}: {error}".splitlines()[0]), 160)
    where = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    try:
        click.echo(f"a bug in loracook{where}: {message}; please report it with {file.name}", err=True)
    except (OSError, ValueError):  # nobody reads what would name the file
        Path(file.name).unlink()
    return 1
