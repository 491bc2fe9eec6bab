"""How commands end: Windows, a reader that has gone, and a pipe that is not ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loracook.cli.endings import ending
from loracook.errors import LoracookError, MachineError, Problem, RecipeError, reworded
from loracook.machine.faults import machine_errors
from loracook.store.folders import default_cache

ROOT = Path(__file__).parents[2]
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
OTHER_PIPE = """
import os, sys
from loracook.cli.endings import ending
def write():
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"x")
sys.exit(ending(write))
"""
LONG = """
import sys
from loracook.cli.endings import ending
from loracook.cli.screen import Lines, show
from loracook.errors import PushError
def run():
    progress = Lines(sys.stdout)
    for number in range(3):
        show(["soup"] * 1000)
        progress.note("still there")
    raise PushError("the upload failed")
sys.exit(ending(run))
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


def test_a_reader_that_has_gone_hides_no_failure_of_another_pipe(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(OTHER_PIPE)
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.wait(timeout=30), b"BrokenPipeError" in process.stderr.read()) == (1, True)
    process.stderr.close()


def test_a_run_whose_reader_has_gone_goes_on_to_its_own_end() -> None:
    process = subprocess.Popen([sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.wait(timeout=30), process.stderr.read()) == (5, b"the upload failed\n")
    process.stderr.close()


@pytest.mark.parametrize("error", [MachineError("out of memory; close other programs"), RecipeError([Problem((), "its weights cannot be read")])])  # fmt: skip
def test_an_error_in_other_words_keeps_what_the_library_said(
    error: LoracookError, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise reworded(error, ValueError("size 3 is not\n  size 4"))

    assert ending(fail) == error.exit_code
    shown = capsys.readouterr().err
    assert shown.startswith(str(error))
    assert "caused by ValueError: size 3 is not size 4" in shown


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ImportError("\nX requires the soup library, run\n pip install soup"),
            "a library cannot be used: X requires",
        ),
        (ImportError("libtorch.so: failed to map segment from shared object"), "out of memory"),
        (
            ModuleNotFoundError("No module named 'soup'", name="soup"),
            "soup is not installed; run: pip install",
        ),
        (MemoryError(), "out of memory"),
        (OSError(24, "Too many open files"), "too many open files; raise the limit: ulimit -n 1024"),
    ],
)
def test_what_this_machine_lacks_is_a_sentence(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert ending(fail) == 3
    assert capsys.readouterr().err.startswith(said)


def test_a_working_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    code = "import os, sys; os.rmdir(os.getcwd()); from loracook.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, "launch", "/x.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "the working folder does not exist any more; go to another one: cd FOLDER\n"


@pytest.mark.skipif(sys.platform != "linux", reason="nothing can be made below /proc")
def test_a_home_that_cannot_hold_a_cache_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("LORACOOK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc")
    assert ending(lambda: default_cache().mkdir(parents=True)) == 3
    assert capsys.readouterr().err.startswith(
        "cannot use /proc/.cache: no such file or directory; fix that, or use"
    )


@pytest.mark.parametrize("error", [ImportError("no name", name="loracook.soup"), BaseException("panic")])
def test_a_fault_of_ours_is_a_bug_whatever_its_type(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert ending(fail) == 1
    assert capsys.readouterr().err.startswith("a bug in loracook")


def test_the_log_has_the_traceback_behind_an_error_in_other_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error = LoracookError("its weights cannot be read")
    error.__cause__ = ValueError("size 3 is not size 4")
    with pytest.raises(LoracookError), machine_errors("train", tmp_path, advice=""):
        raise error
    assert "ValueError: size 3 is not size 4" in caplog.text


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_without_its_streams_ends_as_with_them(closed: str) -> None:
    code = f"{sys.executable} -m loracook validate {{}} {closed}"
    for recipe, exit_code in (("recipes/quickstart.yaml", 0), ("docs/examples/wrong.yaml", 2)):
        assert subprocess.run(code.format(recipe), shell=True, cwd=ROOT, check=False).returncode == exit_code
