"""A tiny model with an adapter, and a tokenizer for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.tiny_families import tiny
from tests.tiny_models import LINES, tokenizer_of


@pytest.fixture(scope="module")
def tuned() -> Any:
    torch.manual_seed(0)
    return get_peft_model(AutoModelForCausalLM.from_config(tiny("llama")), LoraConfig(r=2)).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = tokenizer_of(LINES)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    return tokenizer
