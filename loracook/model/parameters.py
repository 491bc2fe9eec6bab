"""How many parameters an adapter trains, and on which modules it lands, without memory for weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch.nn import Module
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Counts:
    """Parameters of the base alone, of what trains, and of both; modules by pattern with their number."""

    base: int
    trainable: int
    everything: int
    modules: dict[str, int]

    @property
    def percent(self) -> float:
        """The share that trains, of all parameters, in percent."""
        return 100 * self.trainable / self.everything


def count(module: Module, config: LoraConfig) -> Counts:
    """What PEFT counts once `config` is applied to a copy of `module` on the meta device.

    Args:
        module: any torch module, with weights or on the meta device; it stays as it is.
        config: the adapter.

    Raises:
        ValueError: PEFT finds no module to adapt.
    """
    return counted(adapted(on_meta(module), config))


def adapted(skeleton: Module, config: LoraConfig) -> PeftModel:
    """`skeleton`, which is on the meta device, changed in place into PEFT's model for `config`."""
    import torch
    from peft import get_peft_model

    drawn = copy(config)
    if isinstance(drawn.init_lora_weights, str) and drawn.init_lora_weights in ("gaussian", "orthogonal"):
        drawn.init_lora_weights = True  # the values are not looked at, and not all draws work without memory
    with torch.device("meta"):
        return get_peft_model(skeleton, drawn)


def counted(tuned: PeftModel) -> Counts:
    """The counts of a PEFT model: its own counter for what trains and all, the rest for the base."""
    trainable, everything = tuned.get_nb_trainable_parameters()
    base = sum(weight.numel() for name, weight in tuned.named_parameters() if is_base(name))
    inner = tuned.base_model.model
    names = (name.removeprefix(_prefix(inner)) for name in tuned.base_model.targeted_module_names)
    return Counts(base, trainable, everything, dict(Counter(fold(inner, names))))


def fold(module: Module, names: Iterable[str]) -> list[str]:
    """Dotted module names with the numbers of repeated layers written as `*`, in the model's order.

    `names` may leave out the prefix of the backbone; layers are those of a ModuleList.
    """
    from torch.nn import ModuleList

    lists = [name for name, part in module.named_modules() if isinstance(part, ModuleList)]
    known = {*lists, *(name.removeprefix(_prefix(module)) for name in lists)}
    return [_folded(name, known) for name in names]


def is_base(name: str) -> bool:
    """Whether a parameter of a PEFT model was there before the adapter."""
    return "lora_" not in name and ".modules_to_save." not in name and ".trainable_tokens_" not in name


def on_meta(module: Module) -> Module:
    """A copy of a module whose parameters and buffers take no memory."""
    from torch.nn import Parameter

    memo: dict[int, Any] = {id(part): part.detach().to("meta") for part in module.buffers()}
    for part in module.parameters():
        memo[id(part)] = Parameter(part.detach().to("meta"), part.requires_grad)
    return deepcopy(module, memo)


def grow(skeleton: PreTrainedModel, vocabulary: int) -> int:
    """Grow a skeleton's embeddings as loading would; gives how many rows were added."""
    import torch

    before = int(skeleton.get_input_embeddings().weight.shape[0])
    if vocabulary > before:
        with torch.device("meta"):
            skeleton.resize_token_embeddings(vocabulary, mean_resizing=False)
    return max(vocabulary - before, 0)


def _folded(name: str, lists: set[str]) -> str:
    parts = name.split(".")
    return ".".join(
        "*" if part.isdigit() and ".".join(parts[:index]) in lists else part
        for index, part in enumerate(parts)
    )


def _prefix(module: Module) -> str:
    """The backbone's name and a dot where a model has one (`model.` for Llama); it says nothing in a list."""
    backbone = getattr(module, "base_model_prefix", "")
    return f"{backbone}." if backbone and hasattr(module, backbone) else ""
