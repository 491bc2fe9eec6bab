"""Checks and uploads that run in a child process, `python -m loracook.hub`, under a deadline.

huggingface_hub waits for an answer without a timeout, and Xet uploads outside of Python; only a process of
its own can be ended at a deadline. It is also the only process that reads the token.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from loracook.errors import LoracookError, MachineError
from loracook.store.release import ReleaseFiles

QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "error"}
MIN_BANDWIDTH = 250_000
"""Bytes per second; the deadline of an upload allows for a connection this slow."""
ERRORS = {error.__name__: error for error in (LoracookError, MachineError, RuntimeError)}
"""What the child may end with; RuntimeError is a bug, its message the child's traceback."""


@dataclass(frozen=True)
class Target:
    """Where a push goes, in huggingface_hub's terms, and whether it may replace files there."""

    repo_id: str
    private: bool
    commit_message: str
    revision: str | None = None
    create_pr: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Retries:
    """Seconds to wait before each retry, and seconds after which the whole attempt is abandoned."""

    delays: tuple[float, ...]
    timeout: float


CHECK = Retries((1, 2, 4), 60)
UPLOAD = Retries((1, 2, 4, 8, 16, 30, 60, 60, 60), 600)


def check(target: Target, retries: Retries = CHECK) -> None:
    """Return when the push is possible now.

    Raises:
        MachineError: no token, no write access, or the hub cannot be reached.
        LoracookError: the repository already has files, or is public while the recipe says private.
    """
    _ask({"do": "check", "target": asdict(target), "delays": retries.delays}, retries.timeout, lambda _: None)


def upload(
    target: Target,
    release: ReleaseFiles,
    *,
    note: Callable[[str], None],
    retries: Retries = UPLOAD,
) -> dict[str, str]:
    """The commit (`oid`, `url`) that holds exactly these files: the existing one, else a new one.

    Raises the errors of `check`; the timeout allows for the size of the files on a slow connection.
    """
    request = {"do": "upload", "target": asdict(target), "delays": retries.delays}
    request |= {"facts": release.facts, "paths": {name: str(path) for name, path in release.paths.items()}}
    commit: dict[str, str] = _ask(request, retries.timeout + release.bytes / MIN_BANDWIDTH, note)
    return commit


def _ask(request: Mapping[str, Any], timeout: float, note: Callable[[str], None]) -> Any:
    start = time.monotonic()
    with suppress(BrokenPipeError), _child(timeout) as child:  # it may end before it has read the request
        assert child.stdin is not None
        assert child.stdout is not None
        print(json.dumps(request), file=child.stdin, flush=True)  # left open: closing it ends the child
        for kind, content in map(json.loads, child.stdout):
            if kind == "done":
                return content
            elif kind == "note":
                note(content)
            elif kind == "log":
                logging.getLogger("loracook").error(content)
            else:
                raise ERRORS[kind](content)
    timed_out = time.monotonic() - start >= timeout
    problem = f"did not answer within {timeout:.0f} s" if timed_out else "could not be asked"
    raise MachineError(f"the hub {problem} about '{request['target']['repo_id']}'")


@contextmanager
def _child(timeout: float) -> Iterator[subprocess.Popen[str]]:
    """The process that talks to the hub; it is killed at the deadline, and at the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-m", "loracook.hub"],
        env=os.environ | QUIET | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C reaches us alone, and we end the child
    ) as child:
        deadline = threading.Timer(timeout, child.kill)
        deadline.start()
        try:
            yield child
        finally:
            deadline.cancel()
            child.kill()
