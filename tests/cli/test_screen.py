"""What commands print: whole lines in a pipe, wrapped ones on a terminal, a live line that leaves nothing behind."""

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from loracook.cli.screen import Lines, noise_to, screen, wants_color
from tests import processes
from tests.plans import config_recipe, written
from tests.tiny_models import write_twin

COMMAND = [sys.executable, "-c", "from loracook.cli import main; main()"]
CODES = "\x1b["
COLOUR = re.compile(r"\x1b\[[\d;]*\b(?:3[0-8]|9[0-7])[\d;]*m")


def terminal(columns: int) -> tuple[int, int]:
    """The two ends of a terminal of that many columns; what is written to the second is read from the first."""
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    return reader, writer


def read_all(reader: int) -> str:
    """What was written to a terminal whose writer is closed."""
    chunks = list[bytes]()
    try:
        while chunk := os.read(reader, 65536):
            chunks.append(chunk)
    except OSError:  # Linux says so that the other end is closed
        pass
    os.close(reader)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def on_terminal(*arguments: str | Path, columns: int, **environment: str) -> str:
    reader, writer = terminal(columns)
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=writer, stderr=writer, env=os.environ | environment
    )
    os.close(writer)
    text = read_all(reader)
    assert process.wait() == 0, text
    return text


def in_pipe(*arguments: str | Path) -> str:
    ran = processes.run(*arguments, cwd=Path.cwd())
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def words(text: str) -> list[str]:
    return [word for word in text.split() if "GiB" not in word and not word.replace(".", "").isdigit()]


def test_a_plan_fits_a_terminal_and_says_what_it_says_in_a_pipe(tmp_path: Path) -> None:
    write_twin(tmp_path / "model", "llama")
    file = written(tmp_path, base_model={"name_or_path": "./model"}, lora={"r": 8}, train={"max_steps": 10})
    shown, piped = on_terminal("plan", file, columns=80), in_pipe("plan", file)
    assert max(map(len, shown.splitlines())) <= 80
    assert words(shown) == words(piped)
    assert CODES not in shown + piped


def test_a_pipe_gets_whole_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    with screen(out) as progress:
        assert isinstance(progress, Lines)
        progress.begin("train")
        progress.advance(1, 10, "loss 2.0")
        progress.note("a sentence " * 20)
        progress.end({"stage": "train", "seconds": 61.0})
    note, done = out.getvalue().splitlines()
    assert (len(note) > 200, note.startswith(" " * 10)) == (True, True)
    assert done.startswith("train     done in ")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_live_line_leaves_only_what_was_printed(no_color: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    reader, writer = terminal(60)
    with os.fdopen(writer, "w") as out, screen(out) as progress:
        progress.begin("train")
        progress.advance(3, 10, "loss 2.0 " * 20)
        progress.note("[bold]not markup[/bold]")
        progress.end({"stage": "train", "seconds": 61.0})
    text = read_all(reader)
    assert "3/10" in text
    assert "[bold]not markup[/bold]" in text
    assert "train     done in " in text
    assert "\x1b[2K" in text  # the live line is erased
    assert bool(COLOUR.search(text)) != bool(no_color)


def test_a_terminal_in_ci_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    reader, writer = terminal(60)
    with os.fdopen(writer, "w") as out, screen(out) as progress:
        assert isinstance(progress, Lines)
        progress.note("a sentence")
    assert read_all(reader) == "          a sentence\n"


def test_a_dumb_terminal_gets_whole_lines_without_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "dumb")
    reader, writer = terminal(60)
    with os.fdopen(writer, "w") as out, screen(out) as progress:
        assert isinstance(progress, Lines)
        assert not wants_color(out)
    os.close(reader)


def test_noise_goes_to_the_log_and_not_to_the_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with noise_to(tmp_path / "log.txt") as own:
        os.write(1, b"from native code\n")
        os.write(2, b"from a library\n")
        own.write("for the user\n")
    assert (tmp_path / "log.txt").read_text("utf-8").split("\n")[:2] == ["from native code", "from a library"]
    assert capfd.readouterr().out == "for the user\n"


@pytest.mark.parametrize("setting", ["NO_COLOR", "CI"])
def test_no_color_and_ci_say_the_same(tmp_path: Path, setting: str) -> None:
    file = config_recipe(tmp_path, "HuggingFaceTB__SmolLM2-135M-Instruct", {"r": 8})
    arguments = ("explain", file, "lora.r")
    plain = on_terminal(*arguments, columns=100, **{setting: "1"})
    assert plain == on_terminal(*arguments, columns=100)
    assert CODES not in plain
