"""The process that talks to the hub: a request on its input; notes and one answer, as JSON, on its output."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from loracook.errors import LoracookError, MachineError, clean, shorten
from loracook.hub import Target, remote
from loracook.hub.failures import passing, reason

NO_TOKEN = "no token for the hub; set HF_TOKEN, or log in with: hf auth login"
LIMIT = 300


def main() -> None:
    """Answer one request."""
    from huggingface_hub import HfApi, get_token

    request, output, token = json.loads(sys.stdin.readline()), sys.stdout, get_token()
    threading.Thread(target=_end_with_the_one_that_asked, daemon=True).start()

    def say(kind: str, what: Any) -> None:
        if isinstance(what, str) and token:
            what = what.replace(token, "…")  # a hub may repeat it in what it answers
        print(json.dumps({kind: what if kind in ("done", "bug") else _line(what)}), file=output, flush=True)

    if token is None:
        say(MachineError.__name__, NO_TOKEN)
        return
    work = _work(request, HfApi(token=token, library_name="loracook"))
    with redirect_stdout(sys.stderr):
        say(*_answer(work, request["pauses"], lambda text: say("note", text)))


def _end_with_the_one_that_asked() -> None:
    """Wait for the end of the input, which comes however the parent ends, and upload nothing after it."""
    os.read(0, 1)
    os._exit(1)


def _work(request: Mapping[str, Any], api: Any) -> Callable[[], Any]:
    target = Target(**request["target"])
    if request["do"] == "check":
        return lambda: remote.check(api, target)
    return lambda: remote.upload(
        api, target, request["paths"], request["facts"], journal=Path(request["journal"])
    )


def _answer(work: Callable[[], Any], pauses: list[float], note: Callable[[str], None]) -> tuple[str, Any]:
    try:
        return "done", _patiently(work, pauses, note)
    except LoracookError as error:
        return type(error).__name__, str(error)
    except Exception as error:  # the edge of a process: the one that asked raises it again
        if told := reason(error):
            return MachineError.__name__, told
        return "bug", traceback.format_exc()


def _patiently(work: Callable[[], Any], pauses: list[float], note: Callable[[str], None]) -> Any:
    for pause in pauses:
        try:
            return work()
        except Exception as error:
            if not passing(error):
                raise
            note(f"in {pause:g} s again, for {reason(error)}")
            time.sleep(pause)
    return work()


def _line(text: str) -> str:
    return shorten(clean(" ".join(text.split())), LIMIT)


if __name__ == "__main__":
    main()
