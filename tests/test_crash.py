"""A run that is killed at any change of a file is finished by the same command, with the same results."""

from __future__ import annotations

import pytest

from tests.crash import Project, faults, project, spread

MOMENTS = 20
"""`make crashtest` tries two hundred."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, int]:
    """A project that ran to its end, and how many changes of files that took."""
    whole = project(tmp_path_factory.mktemp("crash") / "whole", steps=3)
    code, changes, errors = whole.run()
    assert (code, changes > 100, len(whole.results())) == (0, True, 5), errors
    return whole, changes


@pytest.mark.slow
@pytest.mark.parametrize("index", range(MOMENTS))
def test_a_run_killed_at_any_change_of_a_file_is_finished_with_the_same_results(
    undisturbed: tuple[Project, int], index: int
) -> None:
    whole, changes = undisturbed
    moment = spread(changes, MOMENTS)[index]
    assert list(faults(whole, whole.results(), moment)) == []
