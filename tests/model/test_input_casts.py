"""PEFT's copies of inputs are left out where the losses are the same bits without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import AutoConfig, AutoModelForCausalLM

from loracook.model.input_casts import casts_are_undone
from tests.tiny_models import SMALL

BFLOAT16 = torch.bfloat16


def adapted(**lora: Any) -> Any:
    """A tiny model in bfloat16 with an adapter in float32."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", vocab_size=90, **SMALL["llama"]))
    settings = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    return get_peft_model(base.to(BFLOAT16), LoraConfig(**settings | lora))


def losses(*, casts: bool) -> list[float]:
    """The losses of ten steps."""
    model = adapted()
    ids = torch.randint(0, 90, (2, 30), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    found = []
    for _ in range(10):
        with torch.autocast("cpu", BFLOAT16), disable_input_dtype_casting(model, active=not casts):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def test_losses_are_the_same_bits_without_the_copies() -> None:
    assert losses(casts=True) == losses(casts=False)


@pytest.mark.parametrize(
    ("lora", "autocast", "undone"),
    [
        ({}, BFLOAT16, True),
        ({"use_rslora": True}, BFLOAT16, True),
        ({}, None, False),
        ({"lora_dropout": 0.1}, BFLOAT16, False),
        ({"use_dora": True}, BFLOAT16, False),
    ],
)
def test_copies_that_something_computes_with_stay(lora: Any, autocast: Any, undone: bool) -> None:
    assert casts_are_undone(adapted(**lora), autocast) is undone
