"""Which modules a text reaches on its way through a model: towers for images and sound are not among them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loracook.machine import upstream
from loracook.model.parameters import fold_names
from loracook.model.target_modules import adaptable_modules, rejected_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 4
"""The length of the text that is tried."""


def left_out(model: PreTrainedModel, targets: object) -> list[str]:
    """The names of the modules that are not adapted even where `targets` match them.

    Text never reaches them or, out of all-linear, LoRA cannot adapt them.
    """
    rejected = rejected_names(model) if targets == "all-linear" else ()
    failing = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in rejected]
    return [*failing, *unreached_modules(model)]


def outermost(model: PreTrainedModel, names: Sequence[str]) -> dict[str, int]:
    """The parts of a model of whose adaptable modules all are in `names`, each with their number."""
    others = [f"{name}." for name in adaptable_modules(model) if name not in set(names)]
    parts = Counter(_outermost(name, others) for name in names)
    folded = Counter[str]()
    for part, pattern in zip(parts, fold_names(model, parts), strict=True):
        folded[pattern] += parts[part]
    return dict(folded)


def _outermost(name: str, others: Sequence[str]) -> str:
    parts = name.split(".")
    outer = (".".join(parts[:length]) for length in range(1, len(parts)))
    return next((part for part in outer if not any(other.startswith(f"{part}.") for other in others)), name)


def unreached_modules(model: PreTrainedModel) -> list[str]:
    """The modules that LoRA can adapt and text never reaches, where an adapter would be trained in vain.

    A text is tried on the model without weights. Where its code needs them, what lies outside its decoder
    counts as unreached.

    Args:
        model: a causal language model on the meta device; left unchanged.
    """
    modules, adaptable = dict(model.named_modules()), adaptable_modules(model)
    reached = set[str]()
    hooks = [
        modules[name].register_forward_pre_hook(lambda *_, name=name: reached.add(name)) for name in adaptable
    ]
    try:
        _read_text(model)
    except Exception:  # any that the model's own code raises over values that are not there
        logging.getLogger("loracook").info("the text on fake tensors failed", exc_info=True)
        reached = _names_in_decoder(model)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in adaptable if name not in reached]


def _read_text(model: Any) -> None:
    import torch

    was_training = model.training
    try:
        with torch.no_grad(), upstream.fake_tensor_mode(), torch.device("meta"):
            model.eval()(input_ids=torch.zeros((1, TOKENS), dtype=torch.long), use_cache=False)
    finally:
        model.train(was_training)


def _names_in_decoder(model: Any) -> set[str]:
    decoder = set(model.get_decoder().modules())
    return {name for name, module in model.named_modules() if module in decoder}
