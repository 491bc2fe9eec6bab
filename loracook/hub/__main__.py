"""The process that talks to the hub: reads one JSON request, writes notes, log entries and one answer."""

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
from loracook.hub import remote
from loracook.hub.failures import description, is_transient, retry_after
from loracook.hub.push_process import Target
from loracook.store.release import ReleaseFiles

Send = Callable[[str, Any], None]


def main() -> None:
    """Answer one request."""
    from huggingface_hub import HfApi, get_token

    request, output, token = json.loads(sys.stdin.readline()), sys.stdout, get_token()
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def send(kind: str, content: Any) -> None:
        if isinstance(content, str) and token:
            content = content.replace(token, "…")  # a server may echo it
        if kind not in ("done", "log", RuntimeError.__name__):
            content = shorten(clean(" ".join(content.split())), 300)
        print(json.dumps((kind, content)), file=output, flush=True)

    if token is None:
        send(MachineError.__name__, "no Hugging Face token; set HF_TOKEN, or run: hf auth login")
        return
    work = _work(request, HfApi(token=token, library_name="loracook"))
    with redirect_stdout(sys.stderr):
        send(*_answer(work, request["delays"], send))


def _exit_with_parent() -> None:
    """Exit once stdin is closed, which happens however the parent ends: nothing is uploaded after that."""
    os.read(0, 1)
    os._exit(1)


def _work(request: Mapping[str, Any], api: Any) -> Callable[[], Any]:
    target = Target(**request["target"])
    if request["do"] == "check":
        return lambda: remote.check(api, target)
    release = ReleaseFiles({name: Path(path) for name, path in request["paths"].items()}, request["facts"])
    return lambda: remote.upload(api, target, release)


def _answer(work: Callable[[], Any], delays: list[float], send: Send) -> tuple[str, Any]:
    try:
        return "done", _with_retries(work, delays, send)
    except LoracookError as error:
        return type(error).__name__, str(error)
    except Exception as error:  # noqa: BLE001  # the edge of a process: the parent raises it again
        message = description(error)
        if message is None:
            return RuntimeError.__name__, traceback.format_exc()
        send("log", traceback.format_exc())
        return MachineError.__name__, message


def _with_retries(work: Callable[[], Any], delays: list[float], send: Send) -> Any:
    for delay in delays:
        try:
            return work()
        except Exception as error:  # whether to retry depends on what caused it, not on its type
            if not is_transient(error):
                raise
            wait = max(delay, retry_after(error))
            send("note", f"retrying in {wait:g} s: {description(error)}")
            time.sleep(wait)
    return work()


if __name__ == "__main__":
    main()
