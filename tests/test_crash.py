"""A run that is killed at any change of a file is finished by the same command, with the same results."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import faults, project, spread

MOMENTS = 20
"""`make crashtest` tries two hundred."""


@pytest.mark.slow
def test_a_run_killed_at_any_change_of_a_file_is_finished_with_the_same_results(tmp_path: Path) -> None:
    whole = project(tmp_path / "whole", steps=3)
    code, changes, errors = whole.run()
    assert (code, changes > 100) == (0, True), errors
    expected = whole.results()
    assert len(expected) == 5
    wrong = [fault for moment in spread(changes, MOMENTS) for fault in faults(whole, expected, moment)]
    assert wrong == []
