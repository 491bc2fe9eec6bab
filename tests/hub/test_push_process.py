"""The child process that talks to the hub: retries, deadlines, and what it reports."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from loracook.errors import LoracookError, MachineError
from loracook.hub.failures import retry_after
from loracook.hub.push_process import Retries, Target, check, upload
from loracook.store.release import ReleaseFiles
from tests.hub.malformed import ANSWERS, ENDPOINTS
from tests.hub.server import TOKEN, WHO, Files, Hub, as_endpoint

FILES: Files = {
    "adapter_config.json": b'{"r": 4}',
    "adapter_model.safetensors": b"adapter weights",
    "README.md": b"# soup",
}
TARGET = Target("me/soup", private=True, commit_message="soup")
QUICK = Retries((0.01, 0.01), 60)
CHECKING = """
from loracook.hub.push_process import Target, check
check(Target("me/soup", private=True, commit_message="soup"))
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with as_endpoint(monkeypatch, tmp_path / "home") as running:
        yield running


@pytest.fixture
def release(tmp_path: Path) -> ReleaseFiles:
    return released(tmp_path)


def released(folder: Path) -> ReleaseFiles:
    """Files to push, written to a folder."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    facts = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in FILES.items()
    }
    return ReleaseFiles({name: folder / name for name in FILES}, facts)


def push(release: ReleaseFiles, retries: Retries = QUICK) -> dict[str, str]:
    """Upload the release with little patience."""
    return upload(TARGET, release, note=lambda _: None, retries=retries)


@pytest.mark.parametrize("fault", ["503", "cut"])
@pytest.mark.parametrize("request_kind", ["create", "commit"])
def test_a_request_that_fails_once_is_retried(
    server: Hub, release: ReleaseFiles, request_kind: str, fault: str
) -> None:
    server.faults[request_kind] = [fault]
    push(release)

    assert server.repositories["me/soup"].files() == FILES


def test_an_answer_that_says_nothing_is_never_a_bug_nor_a_commit_that_is_not_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.malformed"], stdout=subprocess.PIPE, text=True, check=True
    )
    endings = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(endings) == len(ENDPOINTS) * len(ANSWERS)
    wrong = [
        ending
        for ending in endings
        if not (ending[2] == "done" and ending[4])
        and not (ending[2] in ("MachineError", "LoracookError") and "the hub" in ending[3])
    ]
    assert wrong == []


def test_a_commit_of_which_the_hub_took_half_is_continued(server: Hub, release: ReleaseFiles) -> None:
    half = {name: FILES[name] for name in ("adapter_config.json", "README.md")}
    server.create("me/soup", files=half)
    push(release)
    assert server.repositories["me/soup"].files() == FILES


def test_files_of_others_are_not_taken_for_half_a_commit(server: Hub, release: ReleaseFiles) -> None:
    server.create("me/soup", files={"README.md": FILES["README.md"] + b"!"})
    with pytest.raises(LoracookError, match=r"already contains 'README\.md'; add --overwrite"):
        push(release)


def test_a_hub_that_asks_for_time_gets_it(server: Hub, release: ReleaseFiles) -> None:
    server.faults["create"] = ["later 2"]
    before = time.monotonic()
    push(release)
    assert time.monotonic() - before > 2
    assert server.repositories["me/soup"].files() == FILES


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("7", 7), ("Sun, 06 Nov 1994 08:49:37 GMT", 0), ("", 0), ("soon", 0), ("\u0661", 0), ("-3", 0)],
)
def test_the_time_that_a_hub_asks_for_is_read(written: str, seconds: float) -> None:
    response = httpx2.Response(
        429, headers={"Retry-After": written.encode()}, request=httpx2.Request("GET", "http://h")
    )
    assert retry_after(HfHubHTTPError("later", response=response)) == seconds


def test_a_token_is_asked_for_before_anything_is_made(server: Hub, release: ReleaseFiles) -> None:
    server.who = {**WHO, "auth": {"accessToken": {"role": "read"}}}
    with pytest.raises(MachineError, match="the token of 'me' is read-only"):
        push(release)
    assert "create" not in server.asked


def test_a_gateways_page_in_place_of_json_is_retried(server: Hub, release: ReleaseFiles) -> None:
    server.faults["validate"] = ["page"]
    push(release)

    assert server.repositories["me/soup"].files() == FILES


def test_a_hub_that_never_answers_is_abandoned_at_the_deadline(server: Hub, release: ReleaseFiles) -> None:
    server.faults["commit"] = ["hang"]

    with pytest.raises(MachineError, match=r"within 3 s .*'me/soup'"):
        push(release, Retries((), 3))


def test_a_hub_that_fails_every_time_is_given_up(
    server: Hub, release: ReleaseFiles, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults["commit"] = ["500"] * 3

    with pytest.raises(MachineError, match="500 to POST /api/models/me/soup/commit/main"):
        push(release)
    assert server.asked.count("commit") == 3
    (logged,) = (record for record in caplog.records if record.name == "loracook")
    assert logged.levelno == logging.ERROR
    assert logged.message.startswith("Traceback ")
    assert TOKEN not in logged.message


def test_a_hub_without_xet_names_the_variable_to_set(
    server: Hub, release: ReleaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "0")

    with pytest.raises(MachineError, match=r"404 Not Found.*HF_HUB_DISABLE_XET=1$"):
        push(release)


def test_the_child_ends_with_its_parent(server: Hub) -> None:
    server.faults["whoami"] = ["hang"]
    parent = subprocess.Popen([sys.executable, "-c", CHECKING], stderr=subprocess.PIPE)
    while "whoami" not in server.asked:
        time.sleep(0.02)
    parent.kill()
    parent.communicate(timeout=5)  # which waits for every process that holds its standard error


def test_a_child_that_ends_before_it_reads_the_request_is_an_error_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    longer_than_a_pipe = Target("me/soup", private=True, commit_message="x" * 500_000)
    with pytest.raises(MachineError, match=r"'me/soup'$"):
        check(longer_than_a_pipe)


def test_a_hub_that_cannot_be_reached_is_named(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match=r"cannot be reached: .*refused"):
        check(TARGET, QUICK)
