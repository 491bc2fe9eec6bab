"""How far answers depend on the batch is tried where they do, and said beside the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loracook import data, model
from loracook.evaluation.measure import Evaluation, Seen
from loracook.evaluation.metrics import metric
from loracook.evaluation.other_batch import other_batch
from loracook.progress import Silent
from loracook.report.generations import in_other_batch
from tests.tiny_recipes import twin

EVALUATE = {
    "rows": 40, "metrics": ["exact_match"], "batch_size": 16, "dtype": "bfloat16", "generation": {"max_new_tokens": 6},
}  # fmt: skip
SCORES = {"exact_match": metric("exact_match", None)}


def asked(folder: Path, **evaluate: Any) -> tuple[Evaluation, data.RowSet]:
    """A random adapter that is evaluated in that way, and the prompts."""
    recipe = twin("quickstart", folder, evaluate=EVALUATE | evaluate)
    torch.manual_seed(0)
    base = model.load_model(recipe, folder / "model", recipe["evaluate"]["dtype"])
    tokenizer = data.with_template(recipe, model.load_tokenizer(recipe, folder / "model"))
    model.fit_embeddings(base, len(tokenizer))
    tuned = get_peft_model(base, LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False))
    prompts = data.all_prompts(recipe, tokenizer)
    return Evaluation(recipe, tuned, tokenizer, Silent()), data.RowSet(None, prompts, ("exact_match",))


def test_in_bfloat16_some_answers_are_repeated_in_another_batch(tmp_path: Path) -> None:
    evaluation, rows = asked(tmp_path)
    again = other_batch(evaluation, rows, evaluation.of(rows, "adapter"), metrics=SCORES)
    assert again is not None
    assert 0 <= again.pop("same") <= 8
    assert again == {
        "rows": 8, "batch_size": 16, "dtype": "bfloat16", "metrics": {"exact_match": {"first": 0.0, "again": 0.0}},
    }  # fmt: skip


@pytest.mark.parametrize(
    "alike",
    [{"dtype": "float32"}, {"batch_size": 1}, {"generation": {"do_sample": True}}, {"rows": 9}],
)
def test_nothing_is_repeated_where_it_would_say_nothing(tmp_path: Path, alike: dict[str, Any]) -> None:
    evaluation, rows = asked(tmp_path, **alike)
    assert other_batch(evaluation, rows, Seen([], []), metrics=SCORES) is None


def test_the_sentence_names_what_moves_and_what_does_not_depend_on_the_batch() -> None:
    moved = {
        "rows": 8, "same": 5, "batch_size": 16, "dtype": "bfloat16",
        "metrics": {"exact_match": {"first": 0.5, "again": 0.375}},
    }  # fmt: skip
    assert in_other_batch({"other_batch": moved}) == (
        "Asked again in another batch, 5 of 8 of the adapter's answers are the same (bfloat16, batch_size 16, "
        "exact_match 50.0% → 37.5%). With unquantized weights, evaluate.dtype: float32 gives the same answers "
        "in every batch."
    )
    assert in_other_batch({}) == in_other_batch({"other_batch": None}) == ""
