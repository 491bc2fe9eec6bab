"""How a command ends: its exit code, and the message for what went wrong."""

from __future__ import annotations

import io
import select
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from loracook.errors import LoracookError, MachineError, RecipeError, clean, shorten

INTERRUPTED = 130
WINDOWS = "loracook does not run on Windows; use WSL 2 (Windows Subsystem for Linux)"


def ending(command: Callable[[], Any], platform: str = sys.platform) -> int:
    """Run a command and return its exit code; what went wrong is printed to standard error."""
    if platform == "win32":  # no flock, no SIGHUP, no /dev/null
        click.echo(WINDOWS, err=True)
        return MachineError.exit_code
    _escape_unencodable_output()
    try:
        result = command()
    except RecipeError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        return error.exit_code
    except LoracookError as error:
        click.echo(clean(str(error)), err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError as error:
        if not _output_is_closed():
            return _bug(error)
        sys.stderr.close()  # else Python complains at exit that it cannot flush standard output
        return 0
    except ModuleNotFoundError as error:
        return _missing_module(error)
    except Exception as error:  # noqa: BLE001  # anything else is a bug; its traceback is saved to a file
        return _machine_fault(error) or _bug(error)
    return result if isinstance(result, int) else 0


def _output_is_closed() -> bool:
    """Whether the reader of our standard output has gone, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always reported
    return bool(poll.poll(0))


def _escape_unencodable_output() -> None:
    """Escape characters that the encoding of a terminal or pipe lacks, where printing would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _missing_module(error: ModuleNotFoundError) -> int:
    """A package of the training stack that is not installed; any missing module of loracook is a bug."""
    from loracook.machine.versions import INSTALL

    if (error.name or "").split(".")[0] == "loracook":
        return _bug(error)
    click.echo(f"{error.name} is not installed; {INSTALL}", err=True)
    return MachineError.exit_code


def _machine_fault(error: Exception) -> int | None:
    """Print an error of this machine and return its exit code; None when it is something else."""
    from loracook.machine.faults import machine_fault
    from loracook.store.folders import default_cache

    message = machine_fault(error, [Path(), default_cache()])
    if message is None:
        return None
    click.echo(clean(message), err=True)
    return MachineError.exit_code


def _bug(error: Exception) -> int:
    with tempfile.NamedTemporaryFile("w", prefix="loracook-", suffix=".traceback", delete=False) as file:
        lines = "".join(traceback.format_exception(error)).splitlines()
        file.writelines(clean(line) + "\n" for line in lines)
    message = shorten(clean(f"{type(error).__name__}: {error}".splitlines()[0]), 160)
    where = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    click.echo(f"a bug in loracook{where}: {message}; please report it with {file.name}", err=True)
    return 1
