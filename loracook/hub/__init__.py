"""The hub: is a push possible, and carrying it out in a process of its own.

huggingface_hub waits for an answer as long as it takes, and what Xet uploads runs outside of Python. Only a
process of its own can be ended at a deadline; it is also the only place where the token is read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from loracook.errors import LoracookError, MachineError
from loracook.store.release import ReleaseFiles

QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "error"}
SLOWEST = 250_000
"""Bytes a second: a slower line is given up."""


@dataclass(frozen=True)
class Target:
    """Where a push goes, as huggingface_hub spells it, and whether it may replace what lies there."""

    repo_id: str
    private: bool
    commit_message: str
    revision: str | None = None
    create_pr: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Patience:
    """Seconds between one try and the next, and seconds after which all of it is given up."""

    pauses: tuple[float, ...]
    seconds: float


CHECKING = Patience((1, 2, 4), 60)
UPLOADING = Patience((1, 2, 4, 8, 16, 30, 60, 60, 60), 600)


def check(target: Target, patience: Patience = CHECKING) -> None:
    """Return when the push could be carried out now.

    Raises:
        MachineError: no token, no right to write, or no hub.
        LoracookError: the repository holds something, or is public where the recipe says private.
    """
    request = {"do": "check", "target": asdict(target), "pauses": patience.pauses}
    _ask(request, patience.seconds, lambda _: None)


def upload(
    target: Target,
    release: ReleaseFiles,
    journal: Path,
    *,
    note: Callable[[str], None],
    patience: Patience = UPLOADING,
) -> dict[str, str]:
    """The commit, `oid` and `url`, that holds these files; found on the hub or made there, never twice.

    Raises the errors of `check`; the deadline is that of `patience` and what the files take on a slow line.
    """
    request = {
        "do": "upload",
        "target": asdict(target),
        "pauses": patience.pauses,
        "journal": str(journal),
        "facts": release.facts,
        "paths": {name: str(path) for name, path in release.paths.items()},
    }
    commit: dict[str, str] = _ask(request, patience.seconds + release.bytes / SLOWEST, note)
    return commit


def _ask(request: Mapping[str, Any], seconds: float, note: Callable[[str], None]) -> Any:
    start, answer = time.monotonic(), None
    with suppress(BrokenPipeError):  # it ended before it was asked, which is no answer either
        answer = _answered(request, seconds, note)
    if answer is None:
        late = time.monotonic() - start >= seconds
        how = f"gave no answer in {seconds:.0f} s" if late else "could not be asked"
        raise MachineError(f"the hub {how} about '{request['target']['repo_id']}'")
    return _result(answer)


def _answered(
    request: Mapping[str, Any], seconds: float, note: Callable[[str], None]
) -> dict[str, Any] | None:
    with subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-m", "loracook.hub"],
        env=os.environ | QUIET | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C comes to us, and we end it
    ) as child:
        deadline = threading.Timer(seconds, child.kill)
        deadline.start()
        try:
            return _talk(child, request, note)
        finally:
            deadline.cancel()
            child.kill()


def _talk(
    child: subprocess.Popen[str], request: Mapping[str, Any], note: Callable[[str], None]
) -> dict[str, Any] | None:
    ask, answers = _pipes(child)
    print(json.dumps(request), file=ask, flush=True)  # and it stays open: at its end the child ends too
    for line in answers:
        said: dict[str, Any] = json.loads(line)
        if "note" not in said:
            return said
        note(said["note"])
    return None


def _pipes(child: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert child.stdin is not None
    assert child.stdout is not None
    return child.stdin, child.stdout


def _result(answer: Mapping[str, Any]) -> Any:
    for error in (LoracookError, MachineError):
        if error.__name__ in answer:
            raise error(answer[error.__name__])
    if "bug" in answer:
        raise RuntimeError(answer["bug"])
    return answer["done"]
