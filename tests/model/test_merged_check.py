"""A merged model that is not what was trained is noticed, whatever it was that went wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loracook import model
from loracook.errors import LoracookError
from tests.stages.test_merge import adapter_for, base_model, recipe_on

Weights = dict[str, Tensor]
CHANGED = "model.layers.1.self_attn.q_proj.weight"


def of_another_base(merged: Weights, base: Weights) -> None:
    """The adapter's change on the base model's weights in another order."""
    for name, weight in base.items():
        merged[name] += weight.flip(0) - weight


def scaled(share: float) -> Callable[[Weights, Weights], None]:
    """The adapter's change so many times."""

    def change(merged: Weights, base: Weights) -> None:
        for name, weight in base.items():
            merged[name] = weight + share * (merged[name] - weight)

    return change


def transposed(merged: Weights, base: Weights) -> None:
    """The adapter's change the wrong way round where that is possible."""
    for name, weight in base.items():
        if weight.ndim == 2 and weight.shape[0] == weight.shape[1]:
            merged[name] = weight + (merged[name] - weight).T.contiguous()


def left_out(merged: Weights, base: Weights) -> None:
    """A weight that was not written."""
    del merged[CHANGED]


def with_nan(merged: Weights, base: Weights) -> None:
    """A number that is none, in the row of a token that no text uses."""
    merged["model.embed_tokens.weight"][-1, -1] = torch.nan


SABOTAGE: dict[str, tuple[Callable[[Weights, Weights], None], str]] = {
    "the base model": (scaled(0), "does 0% of what the adapter does|differ from the adapter's"),
    "half the scale": (scaled(0.5), "differ from the adapter's"),
    "twice the scale": (scaled(2), "differ from the adapter's"),
    "another base": (of_another_base, "differ from the adapter's"),
    "transposed": (transposed, "differ from the adapter's"),
    "a tensor left out": (left_out, f"has no weight {CHANGED}"),
    "NaN": (with_nan, "weight model.embed_tokens.weight holds NaN"),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", SABOTAGE)
def test_a_merge_that_went_wrong_is_noticed(how: str, dtype: str, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(base, merge={"dtype": dtype})
    adapter = adapter_for(recipe, tmp_path / "train") / "adapter"
    model.streamed_merge(recipe, base, adapter, dtype=dtype).save(tmp_path / "merged")
    texts = [[3, 5, 8, 13], [4, 4, 4]]
    tuned = model.load_tuned(recipe, model.load_to_merge(recipe, base, dtype), adapter)
    expected = model.expected_logits(tuned, texts)
    expected.compare(model.logits_of(model.load_merged(recipe, tmp_path / "merged"), texts))
    file = tmp_path / "merged/model.safetensors"
    weights, original = load_file(file), load_file(base / "model.safetensors")
    sabotage, fault = SABOTAGE[how]
    sabotage(weights, {name: weight.to(weights[name].dtype) for name, weight in original.items()})
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(LoracookError, match=fault):
        expected.compare(model.logits_of(model.load_merged(recipe, tmp_path / "merged"), texts))


def test_a_small_change_that_was_lost_is_noticed(tmp_path: Path) -> None:
    base = [torch.randn(8, 50)]
    tuned = [base[0] + 1e-4 * torch.randn(8, 50)]
    with pytest.raises(LoracookError, match="the merged model does 0% of what the adapter does"):
        model.Expected("float32", base, tuned).compare(base)
    assert model.Expected("float32", base, tuned).compare(tuned)["effect_kept"] == pytest.approx(1)


def test_what_a_half_precision_cannot_tell_from_rounding_is_not_judged() -> None:
    base = [torch.randn(8, 50)]
    tuned = [base[0] + 1e-4 * torch.randn(8, 50)]
    assert model.Expected("bfloat16", base, tuned).compare(base)["effect_kept"] is None
    assert model.Expected("bfloat16", base, base).compare(base)["adapter_difference"] == 0


def test_another_chat_template_is_noticed(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", "llama")
    tokenizer = model.load_tokenizer(recipe_on(base), base)
    other = model.load_tokenizer(recipe_on(base), base)
    other.chat_template = "{{ messages }}"
    assert model.different_tokens(tokenizer, other) == "it has another chat template"
    other.chat_template, other.pad_token = tokenizer.chat_template, tokenizer.decode([5])
    assert model.different_tokens(tokenizer, other) == "it has other special tokens"


def test_a_model_that_does_not_fit_is_compared_from_the_disk(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", "llama")
    recipe = recipe_on(base)
    adapter = adapter_for(recipe, tmp_path / "train") / "adapter"
    assert model.where_it_fits(recipe, base, dtype="float32", spare=tmp_path) == {}
    place = {"device_map": "auto", "max_memory": {"cpu": "40KB"}, "offload_folder": tmp_path / "offloaded"}
    seen = []
    for placed in ({}, place):
        tuned = model.load_tuned(recipe, model.load_to_merge(recipe, base, "float32", **placed), adapter)
        seen.append(model.expected_logits(tuned, [[3, 5, 8, 13]]))
        assert any(weight.is_meta for weight in tuned.parameters()) == bool(placed)
    model.streamed_merge(recipe, base, adapter, dtype="float32").save(tmp_path / "merged")
    merged = model.load_merged(recipe, tmp_path / "merged", **place)
    compared = seen[1].compare(model.logits_of(merged, [[3, 5, 8, 13]]))
    assert model.agreement(seen[0].tuned, seen[1].tuned).difference == 0
    assert compared["logits_difference"] < 1e-6
