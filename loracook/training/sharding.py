"""The layers of the base model in shards, one in each process: torch's FSDP2 for what is frozen.

What is trained stays whole in every process, as DDP has it: it is little, and so the adapter, the optimizer
and the checkpoints are those of any other training. A layer is put together where a step needs it.
Source: torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loracook.errors import Problem, RecipeError
from loracook.estimate.memory import Parts
from loracook.estimate.meta_model import MetaModel
from loracook.machine.upstream import leave_out_of_ddp
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn import Module, Parameter

GATHERED = 2
"""Layers that are whole at once: that of the moment, and the next one, whose shards are on their way."""
WHOLE = "remove it, or use --strategy ddp"


def shard(model: PeftModel, device: Any) -> None:
    """Leave this process its part of each layer's frozen weights, and put all weights on its device."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    each = layers(model)
    sharded = {weight for layer in each for weight in _frozen(layer)}
    whole = {weight for weight in model.parameters() if weight not in sharded}
    for weight in whole:
        weight.data = weight.data.to(device)
    for module in (*each, model):
        fully_shard(module, ignored_params=whole)
    leave_out_of_ddp(model, [name for name, each in model.named_parameters() if isinstance(each, DTensor)])


def is_sharded(model: Module) -> bool:
    """Whether some weights are here in part only."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(weight, DTensor) for weight in model.parameters())


def layers(model: Module) -> list[Module]:
    """The layers that a model is a sequence of, as transformers marks them for activation checkpointing."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def check_shardable(recipe: Recipe, meta_model: MetaModel) -> None:
    """Raise RecipeError for what cannot be trained in shards."""
    if problems := list(_obstacles(recipe, meta_model)):
        raise RecipeError(problems)


def _obstacles(recipe: Recipe, meta_model: MetaModel) -> Iterator[Problem]:
    if meta_model.quantization:
        message = f"FSDP2 corrupts quantized weights (bitsandbytes issue 1945); {WHOLE}"
        at = "quantization" if "quantization" in recipe else "base_model"
        yield recipe.problem((at,), message)
    if "target_parameters" in recipe["lora"]:
        yield recipe.problem(("lora", "target_parameters"), f"cannot be adapted in shards; {WHOLE}")
    if recipe["train"].get("torch_compile"):
        yield recipe.problem(("train", "torch_compile"), f"cannot be used with shards; {WHOLE}")
    if not layers(meta_model.base):
        kind = meta_model.config.model_type
        message = f"'{kind}' models have no layers that could be sharded; use --strategy ddp"
        yield recipe.problem(("base_model", "name_or_path"), message)


def sharded_parts(parts: Parts, meta_model: MetaModel, count: int) -> Parts:
    """What training takes in each of `count` processes, its frozen layers in shards."""
    sizes = [
        sum(weight.numel() for weight in _frozen(layer)) * meta_model.dtype.itemsize
        for layer in layers(meta_model.base)
    ]
    shards, gathered = -(-sum(sizes) // count), GATHERED * max(sizes)
    return parts | {"weights": parts["weights"] - sum(sizes) + shards, "gathered_layers": gathered}


def _frozen(layer: Module) -> list[Parameter]:
    return [weight for weight in layer.parameters() if not weight.requires_grad]
