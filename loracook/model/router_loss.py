"""Whether TRL can add the load-balancing loss of a mixture of experts, tried on the model without weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loracook.errors import Problem
from loracook.model.reached import read_text
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def router_loss_problems(base: PreTrainedModel, recipe: Recipe) -> Iterator[Problem]:
    """The problem of a load-balancing loss that TRL adds, or is told to add, and cannot compute.

    TRL adds it wherever the config has a weight for it, also where no layer has experts: a dense model of a
    kind that can have them, or one whose first layers are dense and that has no others (trl 1.16,
    SFTTrainer and `patch_fused_lm_head` in trl/trainer/utils.py).
    """
    text = base.config.get_text_config()
    own = getattr(text, "router_aux_loss_coef", 0.0)
    asked = recipe["train"].get("router_aux_loss_coef")
    weight = own if asked is None else asked
    returned = hasattr(text, "output_router_logits")
    if weight != 0.0 and (not _is_computed(base) if returned else asked):
        message = f"TRL cannot compute a load-balancing loss for this '{text.model_type}' model; write 0.0"
        yield recipe.problem(("train", "router_aux_loss_coef"), message)


def _is_computed(base: PreTrainedModel) -> bool:
    """Whether the loss is computed; also true where the model's code needs weights even without it."""
    try:
        _loss(base)
    except Exception:  # any that the model's own code raises
        logging.getLogger("loracook").info("the load-balancing loss failed", exc_info=True)
        return not _reads_text(base)
    return True


def _loss(base: Any) -> Any:
    """The loss as TRL computes it for every kind of model."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    text = base.config.get_text_config()
    logits = read_text(base.base_model, output_router_logits=True).router_logits
    return load_balancing_loss_func(logits, text.num_experts, text.num_experts_per_tok)


def _reads_text(base: Any) -> bool:
    try:
        read_text(base.base_model)
    except Exception:  # over values that are not there
        logging.getLogger("loracook").info("the text on fake tensors failed", exc_info=True)
        return False
    return True
