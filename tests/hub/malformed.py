"""Push to a hub that answers one kind of request with JSON that says nothing; prints how each push ends.

A program of its own: huggingface_hub reads on import where the hub is, and whether it may be asked.
"""

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.hub.server import TOKEN, Hub, serving

ANSWERS = ("{}", "[]", "null", '"text"')
ENDPOINTS = (
    "whoami",
    "info",
    "tree",
    "create",
    "write_check",
    "preupload",
    "commit",
    "batch",
    "discussions",
)


def main() -> None:
    """Print one line of JSON for each endpoint and answer."""
    with serving() as hub:
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        for endpoint in ENDPOINTS:
            for answer in ANSWERS:
                kind, content, whole = pushed(hub, endpoint, answer)
                print(json.dumps([endpoint, answer, kind, content, whole]), flush=True)


def pushed(hub: Hub, endpoint: str, answer: str) -> tuple[str, object, bool]:
    """How a push ends, what it says, and whether all files are there."""
    from huggingface_hub import HfApi

    from loracook.hub import remote
    from loracook.hub.__main__ import _answer
    from tests.hub.test_push_process import FILES, TARGET, released

    hub.repositories.clear()
    hub.objects.clear()
    if endpoint == "write_check":
        hub.create("me/soup")
    hub.faults.clear()
    hub.faults[endpoint] = [answer] * 9
    target = replace(TARGET, create_pr=endpoint == "discussions")
    with tempfile.TemporaryDirectory() as folder:
        release = released(Path(folder))
        kind, content = _answer(
            lambda: remote.upload(HfApi(token=TOKEN), target, release), [], lambda *_: None
        )
    branch = "refs/pr/1" if target.create_pr else "main"
    repository = hub.repositories.get("me/soup")
    there = repository is not None and branch in repository.branches and repository.files(branch) == FILES
    return kind, content, there


if __name__ == "__main__":
    sys.exit(main())
