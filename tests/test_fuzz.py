"""Twenty thousand recipes changed at random are each valid or refused, without a traceback and quickly."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz import fault, mutants

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_no_mutant_of_a_shipped_recipe_breaks_anything(part: int, tmp_path: Path) -> None:
    file = tmp_path / "mutant.yaml"
    for number, content in enumerate(islice(mutants(part), 20_000 // PARTS)):
        file.write_bytes(content)
        found = fault(file)
        assert found is None, (number, found, content)
