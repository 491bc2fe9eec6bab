"""Which signals stop a run at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loracook.machine.signals import CLEAR_LINE, STOPPED
from tests.plans import written

LORACOOK = Path(sys.executable).parent / "loracook"
HANGING_UP = """
import os, signal
from loracook.machine.signals import stopping_on_signals
with stopping_on_signals():
    os.kill(os.getpid(), signal.SIGHUP)
    print("went on")
"""


def test_a_terminal_that_hangs_up_stops_a_run() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING_UP], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (75, "")


def test_a_run_whose_terminal_is_gone_stops_too() -> None:
    reader, writer = os.openpty()
    ready = "print(flush=True); import time; time.sleep(30)"
    program = f"from loracook.machine.signals import stopping_on_signals\nwith stopping_on_signals(): {ready}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.close(writer)
        os.close(reader)
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 75


def test_a_stopped_run_clears_its_live_line_and_shows_the_cursor() -> None:
    reader, writer = os.openpty()
    process = subprocess.run([sys.executable, "-c", HANGING_UP], stdout=writer, stderr=writer, check=False)
    os.close(writer)
    said = os.read(reader, 1000).decode()
    os.close(reader)
    assert (process.returncode, said) == (75, f"{CLEAR_LINE}{STOPPED}\r\n")


def test_under_nohup_a_run_continues() -> None:
    command = ["nohup", sys.executable, "-c", HANGING_UP]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "went on\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_run_that_only_reads_its_files_yet_ends_as_any_other(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    recipe = written(tmp_path, base_model={"name_or_path": "org/model"}, lora={"r": 4})
    os.truncate(tmp_path / "rows.jsonl", 1 << 30)  # so that hashing it takes a while
    command: list[str | Path] = [LORACOOK, "run", recipe.name]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not obeys(process.pid, signal.SIGUSR1):  # its handler comes after those of both
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    assert (*process.communicate(timeout=30), process.returncode) == ("", f"{STOPPED}\n", code)


def obeys(process: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
def test_signals_are_ours_before_the_command_line_is_imported(number: int, code: int, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(f"import os, time; os.kill(os.getpid(), {number:d}); time.sleep(9)")
    done = subprocess.run(
        [sys.executable, "-m", "loracook", "validate"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"{STOPPED}\n")


STUCK = """
import ctypes
from loracook.machine.signals import stopping_on_signals
with stopping_on_signals():
    print(flush=True)
    ctypes.CDLL(None).system(b"exec sleep 5 >/dev/null 2>&1")  # goes on waiting after a signal
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_waits_for_another_process_in_a_library_stops(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        sent = time.monotonic()
        process.send_signal(number)
        said = process.communicate(timeout=10)[1]
    assert (process.returncode, said) == (75, f"{STOPPED}\n")
    assert time.monotonic() - sent < 3


FORKED = """
import os, signal, time
from loracook.machine.signals import stopping_on_signals
with stopping_on_signals():
    child = os.fork() or time.sleep(30)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    time.sleep(2)
    print("went on")
"""


def test_a_signal_to_a_forked_process_does_not_stop_the_run() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "75\nwent on\n")


@pytest.mark.parametrize("meets", ["", "torch.distributed.init_process_group('gloo', rank=0, world_size=1)"])
def test_a_process_leaves_with_its_code_once_all_that_is_registered_is_done(meets: str) -> None:
    program = f"""
import atexit, os, torch
os.environ |= {{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}}
from loracook.machine.signals import leave
{meets}
atexit.register(print, "registered")
print("printed")
leave(7)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "printed\nregistered\n")
