"""Models changed at random end every command with a documented exit code, in time and in little memory."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.model.fuzz import mutants, outcome, write_seeds


@pytest.mark.slow
def test_no_mutant_of_a_model_breaks_anything(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for number, change in enumerate(islice(mutants(write_seeds(tmp_path), 3, project), 15)):
        assert outcome(project).fault is None, (number, change)
