"""Which modules a text reaches on its way through a model: towers for images and sound are not among them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from loracook.machine import upstream
from loracook.model.parameters import fold_names
from loracook.model.target_modules import adaptable_modules, rejected_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 4
"""The length of the text that is tried."""


def left_out(model: PreTrainedModel, targets: object) -> dict[str, str]:
    """The modules that are not adapted even where `targets` match them, and the part that each belongs to.

    Text never reaches them, so that an adapter would be trained in vain, or, out of all-linear, LoRA cannot
    adapt them. A text is tried on the model without weights; where its code needs them, what lies outside its
    decoder counts as unreached. A part is the outermost module that is not reached either, numbers folded.

    Args:
        model: a causal language model on the meta device; left unchanged.
        targets: the recipe's `lora.target_modules`.
    """
    reached = _reached_modules(model)
    rejected = rejected_names(model) if targets == "all-linear" else ()
    failing = (name for name, _ in model.named_modules() if name.rpartition(".")[2] in rejected)
    names = [*failing, *(name for name in adaptable_modules(model) if name not in reached)]
    passed = {outer for name in reached for outer in _owners(name)}
    parts = (next((outer for outer in _owners(name) if outer not in passed), name) for name in names)
    return dict(zip(names, fold_names(model, parts), strict=True))


def _owners(name: str) -> list[str]:
    """A module's name after those of all modules that it is in, the outermost first."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _reached_modules(model: PreTrainedModel) -> set[str]:
    """The names of the modules that a text passes through."""
    reached = set[str]()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: reached.add(name))
        for name, module in model.named_modules()
    ]
    try:
        read_text(model)
    except Exception:  # any that the model's own code raises over values that are not there
        logging.getLogger("loracook").info("the text on fake tensors failed", exc_info=True)
        return _names_in_decoder(model)
    finally:
        for hook in hooks:
            hook.remove()
    return reached


def read_text(model: Any, **asked: Any) -> Any:
    """The output of a model on the meta device, or of a part that takes tokens, for a text without data."""
    import torch

    was_training = model.training
    try:
        with torch.no_grad(), upstream.fake_tensor_mode(), torch.device("meta"):
            return model.eval()(
                input_ids=torch.zeros((1, TOKENS), dtype=torch.long), use_cache=False, **asked
            )
    finally:
        model.train(was_training)


def _names_in_decoder(model: Any) -> set[str]:
    decoder = set(model.get_decoder().modules())
    return {name for name, module in model.named_modules() if module in decoder}
