"""How many parameters an adapter trains, and on which modules, without memory for weights."""

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
class ParameterCounts:
    """Parameters of the base, trainable ones, and all; adapted modules by pattern with their number."""

    base: int
    trainable: int
    all: int
    modules: dict[str, int]

    @property
    def percent(self) -> float:
        """The trainable share of all parameters, in percent."""
        return 100 * self.trainable / self.all


def count_parameters(module: Module, config: LoraConfig) -> ParameterCounts:
    """What PEFT counts once `config` is applied to a copy of `module` on the meta device.

    Args:
        module: any torch module, with weights or on the meta device; left unchanged.
        config: the adapter.

    Raises:
        ValueError: PEFT finds no module to adapt.
    """
    return counts_of(with_adapter(meta_copy(module), config))


def with_adapter(module: Module, config: LoraConfig) -> PeftModel:
    """`module`, which is on the meta device, changed in place into PEFT's model for `config`."""
    import torch
    from peft import get_peft_model

    config = copy(config)
    if isinstance(config.init_lora_weights, str) and config.init_lora_weights in ("gaussian", "orthogonal"):
        config.init_lora_weights = True  # the values do not matter, and not all of them work without memory
    with torch.device("meta"):
        return get_peft_model(module, config)


def counts_of(tuned: PeftModel) -> ParameterCounts:
    """The counts of a PEFT model: trainable and all by PEFT's own counter, the base by name."""
    trainable, all_parameters = tuned.get_nb_trainable_parameters()
    base = sum(weight.numel() for name, weight in tuned.named_parameters() if is_base(name))
    inner = tuned.base_model.model
    names = (name.removeprefix(_prefix(inner)) for name in tuned.base_model.targeted_module_names)
    return ParameterCounts(base, trainable, all_parameters, dict(Counter(fold_names(inner, names))))


def fold_names(module: Module, names: Iterable[str]) -> list[str]:
    """Dotted module names with the numbers of repeated layers written as `*`, in the given order.

    `names` may leave out the prefix of the backbone; layers are those of a ModuleList.
    """
    from torch.nn import ModuleList

    lists = [name for name, child in module.named_modules() if isinstance(child, ModuleList)]
    known = {*lists, *(name.removeprefix(_prefix(module)) for name in lists)}
    return [_folded(name, known) for name in names]


def is_base(name: str) -> bool:
    """Whether a parameter of a PEFT model belongs to the base, not to the adapter."""
    return "lora_" not in name and ".modules_to_save." not in name and ".trainable_tokens_" not in name


def meta_copy(module: Module) -> Module:
    """A copy of a module whose parameters and buffers take no memory."""
    from torch.nn import Parameter

    memo: dict[int, Any] = {id(buffer): buffer.detach().to("meta") for buffer in module.buffers()}
    for parameter in module.parameters():
        memo[id(parameter)] = Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return deepcopy(module, memo)


def grow_embeddings(model: PreTrainedModel, vocabulary: int) -> int:
    """Grow the embeddings of a model on the meta device as loading would; gives the number of rows added."""
    import torch

    before = int(model.get_input_embeddings().weight.shape[0])
    if vocabulary > before:
        with torch.device("meta"):
            model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return max(vocabulary - before, 0)


def _folded(name: str, lists: set[str]) -> str:
    parts = name.split(".")
    return ".".join(
        "*" if part.isdigit() and ".".join(parts[:index]) in lists else part
        for index, part in enumerate(parts)
    )


def _prefix(module: Module) -> str:
    """The backbone's name and a dot where a model has one (`model.` for Llama)."""
    backbone = getattr(module, "base_model_prefix", "")
    return f"{backbone}." if backbone and hasattr(module, backbone) else ""
