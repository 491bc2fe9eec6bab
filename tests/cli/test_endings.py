"""How commands end: Windows, a reader that has gone, and a pipe that is not ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

from loracook.cli.endings import ending

ON_WINDOWS = """
import sys, click
sys.platform, sys.modules["fcntl"] = "win32", None
from loracook.cli import main
main()
"""
ENDLESS = """
import sys, click
from loracook.cli.endings import ending
def write():
    while True:
        click.echo("soup")
sys.exit(ending(write))
"""


def test_windows_is_refused_in_one_line_before_anything_is_imported_that_it_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", ON_WINDOWS, "run"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "Windows" in done.stderr


def test_a_reader_that_has_gone_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.wait(timeout=30), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_a_broken_pipe_to_another_process_is_a_bug(capfd: pytest.CaptureFixture[str]) -> None:
    def write() -> None:
        with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE) as child:
            child.wait()
            assert child.stdin is not None
            child.stdin.write(b"x" * 1_000_000)

    assert ending(write) == 1
    assert "BrokenPipeError" in capfd.readouterr().err
