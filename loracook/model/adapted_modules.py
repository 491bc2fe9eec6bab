"""The modules that PEFT has put into a model: found, merged into those they are in place of, set apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loracook.model.parameters import is_base

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel


def embeddings(base: PreTrainedModel) -> Iterator[tuple[str, Module]]:
    """The modules of the input embeddings and the output layer, with their names."""
    both = (base.get_input_embeddings(), base.get_output_embeddings())
    return ((name, module) for name, module in base.named_modules() if any(module is each for each in both))


def set_parameter(module: Module, name: str, numbers: Tensor) -> None:
    """Put a parameter that is not trained in place of a module's own."""
    from torch.nn import Parameter

    path, _, key = name.rpartition(".")
    module.get_submodule(path).register_parameter(key, Parameter(numbers, requires_grad=False))


def lacks_numbers(module: Module) -> bool:
    """Whether what is to be merged into has no numbers yet."""
    return any(weight.is_meta and is_base(name) for name, weight in module.named_parameters())


def adapted_modules(base: Module) -> Iterator[tuple[str, Module]]:
    """Every module that PEFT has put in place of one of the base model, not those within another."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    last = None
    for name, module in base.named_modules():
        inside = last is not None and name.startswith(f"{last}.")
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) and not inside:
            last = name
            yield name, module


def merge_into_base(module: Any) -> None:
    """Merge what PEFT has put around a module of the base model into it, by PEFT's own arithmetic.

    Whether the result is finite is looked at when it is written; PEFT's safe_merge rounds once more.
    """
    if hasattr(module, "unload_and_optionally_merge_module"):
        module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    else:
        module.merge()


def untie(base: PreTrainedModel) -> None:
    """Say in the config that the embeddings are no longer tied, where the adapter has changed one of them."""
    modules = dict(embeddings(base))
    first, *others = (module.weight for module in modules.values())
    if any(each is not first and (each.is_meta or each.data_ptr() != first.data_ptr()) for each in others):
        base.config.tie_word_embeddings = False
