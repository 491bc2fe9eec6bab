"""The child process that talks to the hub: retries, deadlines, and what it reports."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loracook.errors import MachineError
from loracook.hub.push_process import Retries, Target, check, upload
from loracook.store.release import ReleaseFiles
from tests.hub.server import TOKEN, Files, Hub, as_endpoint

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
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    facts = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in FILES.items()
    }
    return ReleaseFiles({name: tmp_path / name for name in FILES}, facts)


def push(release: ReleaseFiles, retries: Retries = QUICK) -> dict[str, str]:
    """Upload the release with little patience."""
    journal = release.paths["README.md"].with_name("journal.json")
    journal.write_text("{}")
    return upload(TARGET, release, journal, note=lambda _: None, retries=retries)


@pytest.mark.parametrize("fault", ["503", "cut"])
@pytest.mark.parametrize("request_kind", ["create", "commit"])
def test_a_request_that_fails_once_is_retried(
    server: Hub, release: ReleaseFiles, request_kind: str, fault: str
) -> None:
    server.faults[request_kind] = [fault]
    push(release)

    assert server.repositories["me/soup"].files() == FILES


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
