"""Twenty thousand recipes changed at random are each valid or refused, without a traceback and quickly."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import pytest

from loracook.recipe.validate import problems_of
from tests.recipe.fuzz import fault, mutants

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_no_mutant_of_a_shipped_recipe_breaks_anything(part: int, tmp_path: Path) -> None:
    file = tmp_path / "mutant.yaml"
    for number, content in enumerate(islice(mutants(part), 20_000 // PARTS)):
        found = fault(content, file)
        assert found is None, (number, found, content)


HEAD = "version: 1\nname: x\nbase_model: {name_or_path: a/b}\nlora: {r: 8}\n"
LONG = 250_000


@pytest.mark.parametrize(
    "text",
    [
        HEAD + 'dataset: {path: "' + "/" * LONG + '\\n"}',
        HEAD + "dataset: {path: a/b}\ndescription: " + "sk-" * (LONG // 3),
        HEAD + "dataset: {path: a/b}\ndescription: " + "hf_" * (LONG // 3),
        HEAD + "dataset: {path: a/b}\ndescription: '" + "{{" * (LONG // 2) + "'",
        HEAD + "dataset: {path: a/b}\nevaluate: {regex: '" + "(" * LONG + "'}",
        HEAD + "dataset: {path: a/b}\nevaluate: {regex: '" + "(a{9}" * 190 + "'}",
        HEAD + "dataset: {path: a/b}\ntrain: {optim_args: '" + "a=1," * (LONG // 4) + "'}",
        HEAD + "dataset: {path: a/b}\n" + "".join(f"key{number}: 1\n" for number in range(15_000)),
        HEAD
        + "dataset: {path: a/b, where: {"
        + ", ".join(f"k{number}: [a]" for number in range(9_000))
        + "}}",
        HEAD + "dataset: {path: a/b}\ntokenizer: {extra_special_tokens: [" + "a, " * 19_000 + "]}",
        HEAD + "dataset: {path: a/b}\nevaluate: {metrics: [" + "rogue, " * 19_000 + "]}",
        "a: " * LONG,
        "- " * LONG,
        '"' + "a" * LONG,
        "? " * LONG,
        "#" * LONG,
        "\u200b" * (LONG // 3),
        "x" * LONG + ": 1",
    ],
    ids=range(18),
)
def test_a_large_hostile_recipe_is_refused_without_going_over_it_again_and_again(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "large.yaml"
    file.write_text(text, encoding="utf-8")
    began = time.process_time()
    assert [str(problem) for problem in problems_of(str(file))] != []
    assert time.process_time() - began < SECONDS_AT_MOST


SECONDS_AT_MOST = 10.0
"""Processor seconds: 0.2 is the most that one of these takes, and what goes by the square takes minutes."""
