"""The hub that the tests of this folder talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.server import Hub, serving


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as running:
        yield running
