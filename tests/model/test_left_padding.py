"""Prompts of different lengths share a batch only in models that mind the attention mask."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from loracook.model.left_padding import batches_of, minds_padding
from tests.tiny_families import tiny

PROMPTS = [[1, 2, 3], [4], [5, 6, 7], [8, 9], [1, 1, 1]]


def model(kind: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny(kind)).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_mind_the_mask_are_known_in_every_dtype(dtype: torch.dtype) -> None:
    assert minds_padding(model("llama", dtype))
    assert minds_padding(model("mamba", dtype))
    assert not minds_padding(model("rwkv", dtype))


def test_batches_are_sorted_by_length_and_of_one_length_where_padding_would_be_read() -> None:
    assert list(batches_of(model("llama"), PROMPTS, 2)) == [[1, 3], [0, 2], [4]]
    assert list(batches_of(model("rwkv"), PROMPTS, 2)) == [[1], [3], [0, 2], [4]]
    assert list(batches_of(None, PROMPTS, 1)) == [[1], [3], [0], [2], [4]]
    assert list(batches_of(None, [], 4)) == []
