"""The hub that the tests of this folder talk to."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import Hub, serving


@pytest.fixture(scope="session")
def port() -> int:
    """The port of every hub of these tests: libraries read HF_ENDPOINT once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
        return number


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of HF_HOME, which libraries read once, too."""
    return tmp_path_factory.mktemp("home") / "hf"


@pytest.fixture
def home(shared_home: Path) -> Path:
    """The same, empty."""
    shutil.rmtree(shared_home, ignore_errors=True)
    return shared_home


@pytest.fixture
def hub(port: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that commands talk to, with empty caches."""
    with serving(port) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HOME", str(home))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("LORACOOK_CACHE", str(tmp_path / "cache"))
        yield running
