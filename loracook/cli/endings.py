"""How a command ends: its exit code, and the words for what went wrong."""

from __future__ import annotations

import io
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from loracook.errors import LoracookError, MachineError, RecipeError, clean

INTERRUPTED = 130


def ending(command: Callable[[], Any]) -> int:
    """Call a command and give its exit code; what went wrong is said on standard error."""
    _escape_what_cannot_be_spelt()
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
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        return _missing(error)
    except Exception as error:
        return _fault(error) or _bug(error)
    return result if isinstance(result, int) else 0


def _escape_what_cannot_be_spelt() -> None:
    """Keep printing from failing where a terminal or a pipe has an encoding without all characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _missing(error: ModuleNotFoundError) -> int:
    """A training package that is not installed is the user's to mend; any other missing module is a bug."""
    if (error.name or "").split(".")[0] == "loracook":
        return _bug(error)
    click.echo(f'{error.name} is not installed; run: pip install "loracook[train]"', err=True)
    return 3


def _fault(error: Exception) -> int | None:
    """The exit code for a fault of this machine, said; None when it is something else."""
    from loracook.machine.faults import machine_fault
    from loracook.store.folders import default_cache

    said = machine_fault(error, [Path(), default_cache()])
    if said is None:
        return None
    click.echo(clean(said), err=True)
    return MachineError.exit_code


def _bug(error: Exception) -> int:
    with tempfile.NamedTemporaryFile("w", prefix="loracook-", suffix=".traceback", delete=False) as file:
        file.write(clean_lines(traceback.format_exception(error)))
    what = shorten_line(f"{type(error).__name__}: {error}")
    where = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    click.echo(f"a bug in loracook{where}: {what}; please report it with {file.name}", err=True)
    return 1


def clean_lines(lines: list[str]) -> str:
    """A traceback's lines, each cleaned of secrets and control characters."""
    return "".join(clean(line) + "\n" for text in lines for line in text.splitlines())


def shorten_line(text: str) -> str:
    """The first line of a text, cleaned, at most 160 characters."""
    return clean(text.splitlines()[0])[:160]
