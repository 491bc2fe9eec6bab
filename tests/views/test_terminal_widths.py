"""What a pipe gets whole, a terminal of 80 or 120 columns gets wrapped, as golden texts."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner

from loracook.cli.inspect import command
from loracook.cli.screen import show
from tests.plans import CONFIGS

GOLDEN = Path(__file__).parent / "golden"


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_inspection_of_a_model_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS)
    result = CliRunner().invoke(command, ["facebook__opt-350m"])
    assert result.exception is None, result.exception
    assert result.stdout == golden("inspect.txt", result.stdout)


@pytest.mark.parametrize("name", ["plan", "inspect"])
@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_lines_that_wrap_below_their_last_column(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped, terminal = (GOLDEN / f"{name}.txt").read_text("utf-8"), Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", terminal)
    show(piped.splitlines())
    shown = terminal.getvalue()
    assert max(map(len, shown.splitlines())) <= columns
    assert shown.split() == piped.split()
    assert shown == golden(f"{name}-{columns}.txt", shown)


def golden(name: str, text: str) -> str:
    """The golden text of that name; where there is none, `text` is written for you to read and the test fails."""
    file = GOLDEN / name
    if not file.exists():
        file.write_text(text, "utf-8")
        pytest.fail(f"{file} was missing and is written; read it, then commit it")
    return file.read_text("utf-8")
