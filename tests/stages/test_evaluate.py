"""What an evaluation is said to do before it is run."""

from __future__ import annotations

from pathlib import Path

from loracook.recipe.recipe import load
from loracook.stages import evaluate

RECIPE = """\
version: 1
base_model: {name_or_path: org/model}
dataset: {path: org/rows, eval: {rows: 5}}
lora: {r: 8}
evaluate:
  rows: 5
  metrics: [json_match]
  also: {general: {path: org/text, format: text}, bakery: {path: org/bread, format: text}}
  adapters: {last-week: ./last-week}
"""


def test_the_plan_names_every_set_of_rows_and_every_adapter(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert evaluate.describe(load(tmp_path / "recipe.yaml")) == (
        "base model vs adapter, last-week: up to 5 evaluation rows; loss, json_match; also on general, bakery"
    )
