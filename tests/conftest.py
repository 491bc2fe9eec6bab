"""What every test runs under: no hub, a cache of its own, and the machine's own settings left out."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("HF_TOKEN", None)
os.environ.pop("LORACOOK_ALLOW_PATHS", None)
os.environ["XDG_CONFIG_HOME"] = os.devnull
# A shell ignores SIGINT for background jobs, nohup SIGHUP; the commands that tests start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that have the most slow tests first, so that no process ends with one of them alone."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """Leave the libraries that tests imported out of every search for garbage, of which a run makes several."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of converted models and prepared data, fresh for this test session."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LORACOOK_CACHE"] = str(folder)
    yield folder
    del os.environ["LORACOOK_CACHE"]
