"""How many parameters an adapter trains, and on which modules, without memory for weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch.nn import Module, Parameter
    from transformers import PreTrainedModel


MATRIX = 2
"""Dimensions of a matrix; experts are stacked in parameters of one more."""


class RejectedError(LoracookError):
    """PEFT rejects an adapter on a model, in its own words."""


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


@dataclass(frozen=True)
class WeightGroup:
    """Weights of one pattern: their number, and whether `target_parameters` alone can name them."""

    pattern: str
    number: int
    bare: bool


def count_parameters(module: Module, config: LoraConfig) -> ParameterCounts:
    """What PEFT counts once `config` is applied to a copy of `module` on the meta device.

    Args:
        module: any torch module, with weights or on the meta device; left unchanged.
        config: the adapter.

    Raises:
        RejectedError: PEFT finds no module to adapt.
    """
    return counts_of(with_adapter(meta_copy(module), config))


def with_adapter(module: Module, config: LoraConfig) -> PeftModel:
    """`module`, which is on the meta device, changed in place into PEFT's model for `config`.

    Raises:
        RejectedError: PEFT cannot do that.
    """
    import torch
    from peft import get_peft_model

    config = copy(config)
    if isinstance(config.init_lora_weights, str) and config.init_lora_weights in ("gaussian", "orthogonal"):
        config.init_lora_weights = True  # the values do not matter, and not all of them work without memory
    try:
        with torch.device("meta"):
            return get_peft_model(module, config)
    except (ValueError, TypeError, IndexError, NotImplementedError, RuntimeError) as error:
        raise RejectedError(" ".join(str(error).split())) from error


def counts_of(tuned: PeftModel) -> ParameterCounts:
    """The counts of a PEFT model: trainable and all by PEFT's own counter, the base by name."""
    trainable, all_parameters = tuned.get_nb_trainable_parameters()
    base = sum(weight.numel() for name, weight in tuned.named_parameters() if is_base(name))
    inner = tuned.base_model.model
    adapted = (*tuned.base_model.targeted_module_names, *tuned.base_model.targeted_parameter_names)
    names = (name.removeprefix(_prefix(inner)) for name in adapted)
    return ParameterCounts(base, trainable, all_parameters, dict(Counter(fold_names(inner, names))))


def unadapted_weights(tuned: PeftModel, parts: Iterable[str] = ()) -> list[WeightGroup]:
    """The weights that a PEFT model does not train, largest group first, without embeddings and head.

    All weights of one of the `parts`, which are folded module names, are one group.
    """
    from torch.nn.modules.conv import _ConvNd

    base, groups = tuned.get_base_model(), dict[str, WeightGroup]()
    adapted = set(map(id, _adapted_weights(base)))
    weights = {name: tensor for name, tensor in base.named_parameters() if is_base(name)}
    left = {name: tensor for name, tensor in weights.items() if id(tensor) not in adapted}
    for pattern, (name, tensor) in zip(fold_names(base, left), left.items(), strict=True):
        owner = base.get_submodule(name.rpartition(".")[0])
        bare = tensor.dim() > MATRIX and not isinstance(owner, _ConvNd)
        short = pattern.replace(".base_layer", "")
        short = short if bare else short.removesuffix(".weight")
        short = next((part for part in parts if short.startswith(f"{part}.")), short)
        number = groups[short].number if short in groups else 0
        groups[short] = WeightGroup(short, number + tensor.numel(), bare)
    return sorted(groups.values(), key=lambda group: -group.number)


def _adapted_weights(base: PreTrainedModel) -> Iterator[Parameter]:
    """The weights that LoRA adapts or training replaces, and those of embeddings and output head."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper
    from peft.utils.other import AuxiliaryTrainingWrapper

    for end in (base.get_input_embeddings(), base.get_output_embeddings()):
        yield from end.parameters() if end is not None else ()
    for part in base.modules():
        if isinstance(part, ParamWrapper):
            yield part.get_param()
        elif isinstance(part, LoraLayer):
            yield from part.get_base_layer().parameters()
        elif isinstance(part, AuxiliaryTrainingWrapper):
            yield from part.original_module.parameters()


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
