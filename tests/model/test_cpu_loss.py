"""The loss on a CPU is TRL's, of the trained positions alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from loracook.model.cpu_loss import MOST, keeps_logits, score_trained_positions
from tests.tiny_models import SMALL

WORDS = 320
IDS = torch.randint(0, WORDS, (3, 40), generator=torch.Generator().manual_seed(1))
DRAWN = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(2))
EXPERTS = SMALL["llama"] | {"num_local_experts": 4, "output_router_logits": True}


def model(kind: str, **changes: Any) -> Any:
    """A tiny model with TRL's head, which is frozen as with LoRA."""
    settings = {**SMALL, "mixtral": EXPERTS, "gemma2": SMALL["llama"] | {"head_dim": 16}}[kind] | changes
    config = AutoConfig.for_model(kind, vocab_size=WORDS, **settings)
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config).float()
    made.get_output_embeddings().weight.requires_grad_(False)
    add_fused_lm_head(made, outputs=("log_probs", "entropy", "is_top1"))
    return made


def scored(made: Any, trained: float) -> dict[str, torch.Tensor]:
    """Sums over a share of the tokens, and all gradients of their loss."""
    labels = torch.where(trained > DRAWN, IDS, -100)
    said = made(input_ids=IDS, labels=labels, fused_lm_head=True)
    (-said.log_probs.sum() / 7).backward()
    gradients = {name: each.grad for name, each in made.named_parameters() if each.grad is not None}
    sums = {name: said[name].sum().float() for name in ("log_probs", "entropy", "is_top1", "label_mask")}
    return gradients | sums | ({"aux": said.aux_loss} if said.aux_loss is not None else {})


@pytest.mark.parametrize("kind", ["llama", "phi", "falcon", "gpt_neox", "mixtral"])
@pytest.mark.parametrize("trained", [0.4, 1.0])
def test_losses_and_gradients_are_those_of_trl(kind: str, trained: float) -> None:
    theirs, ours = model(kind), model(kind)
    score_trained_positions(ours)
    expected, found = scored(theirs, trained), scored(ours, trained)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_batch_without_a_trained_token_has_a_loss_of_zero_and_no_gradient() -> None:
    made = model("llama")
    score_trained_positions(made)
    found = scored(made, 0.0)
    assert found["log_probs"].item() == 0
    assert not any(gradient.any() for name, gradient in found.items() if "." in name)


def test_in_bfloat16_the_gradient_is_as_near_the_true_one_as_that_of_trl() -> None:
    exact, theirs, ours = model("llama").double(), model("llama"), model("llama")
    score_trained_positions(ours)
    scored(exact, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        scored(theirs, 0.5)
        scored(ours, 0.5)
    name = "model.layers.1.mlp.down_proj.weight"
    true, *found = (made.get_parameter(name).grad.double() for made in (exact, theirs, ours))
    errors = [float((gradient - true).norm() / true.norm()) for gradient in found]
    assert errors[1] < 1.05 * errors[0] < 0.02


def test_what_cannot_be_kept_is_left_to_trl() -> None:
    made = model("llama")
    assert keeps_logits(made, MOST // (2 * WORDS), torch.bfloat16)
    assert not keeps_logits(made, MOST // (2 * WORDS) + 1, torch.bfloat16)
    assert not keeps_logits(model("gemma2"), 1, torch.bfloat16)
    made.get_output_embeddings().weight.requires_grad_(True)
    assert not keeps_logits(made, 1, torch.bfloat16)


def test_generation_goes_on_as_before() -> None:
    plain, made = model("llama"), model("llama")
    score_trained_positions(made)
    prompt = {"input_ids": IDS[:1, :5], "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert made.generate(**prompt).tolist() == plain.generate(**prompt).tolist()
