"""Which signals stop a run at all."""

from __future__ import annotations

import subprocess
import sys

HANGING_UP = """
import os, signal
from loracook.signals import catching
with catching():
    os.kill(os.getpid(), signal.SIGHUP)
    print("went on")
"""


def test_a_terminal_that_hangs_up_stops_a_run() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING_UP], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (75, "")


def test_under_nohup_it_goes_on() -> None:
    command = ["nohup", sys.executable, "-c", HANGING_UP]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "went on\n")
