"""The memory that each stage of a recipe takes at its peak, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loracook.estimate.batches import Batch
from loracook.estimate.fake_step import StepMemory, evaluation_bytes, step_memory
from loracook.estimate.meta_model import MetaModel
from loracook.estimate.weight_bytes import merged_parameters, optimizer_bytes, parameter_bytes
from loracook.model.parameters import is_base
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PretrainedConfig


Parts = dict[str, int]
"""Bytes by what takes them; the parts of a stage add up to its peak."""

HOLES, HOLES_A_MODULE, MOST_HOLES = 0.25, 0.003, 0.9
"""What glibc's heap takes beside the tiles of the loss, as a share of them, where freed memory is kept for
speed (loracook/machine/memory.py): an aligned block needs more room than it leaves, and every adapted
module leaves small ones between. Fitted to the set-ups of benchmarks/memory.py, where the same set-up
scatters by 6 %."""
COPIES, HOLES_KEPT = 2.0, 0.25
"""What stands beside logits that are kept (loracook/model/cpu_loss.py), as shares of them and of activations:
the copies that matrix products make, and holes. Fitted to six set-ups of benchmarks/memory.py."""
LIBRARIES = 50 << 20
"""What torch's libraries take for themselves in the first step on a CPU. Measured: benchmarks/memory.py."""


@dataclass(frozen=True)
class StageMemory:
    """What each stage takes at its peak; stages run one after the other, each alone."""

    stages: Mapping[str, Parts]

    @property
    def peaks(self) -> dict[str, int]:
        """The bytes of each stage at its peak."""
        return {stage: sum(parts.values()) for stage, parts in self.stages.items()}

    @property
    def peak_stage(self) -> str:
        """The stage that takes most."""
        peaks = self.peaks
        return max(peaks, key=lambda stage: peaks[stage])

    def too_large(self, room: int) -> list[str]:
        """The stages that take more than `room` bytes."""
        return [stage for stage, peak in self.peaks.items() if peak > room]


def stage_memory(recipe: Recipe, meta_model: MetaModel, batch: Batch, *, device: str) -> StageMemory:
    """The memory of a recipe's stages on a device of kind "cpu" or "cuda" for the largest training batch.

    Raises:
        FakeStepError: the model's code does not run without weights.
    """
    stages = {"train": _train(recipe, meta_model, batch, device=device)}
    if "evaluate" in recipe:
        stages["evaluate"] = _evaluate(recipe, meta_model, batch, device=device)
    if "merge" in recipe:
        stages["merge"] = _merge(recipe, meta_model)
    if "export" in recipe:
        stages["export"] = _export(recipe, meta_model)
    return StageMemory(stages)


def generation_cache(recipe: Recipe, meta_model: MetaModel, longest: int) -> int:
    """The bytes of keys and values while answers to prompts of up to `longest` tokens are generated."""
    section = recipe["evaluate"]
    prompts, rows = section.get("prompts", []), section.get("rows", 0)
    # A token of a prompt has one character at least.
    prompt = longest if rows else max(map(len, prompts), default=0)
    length = min(prompt, recipe["train"]["max_length"]) + section["generation"]["max_new_tokens"]
    beams = section["generation"].get("num_beams", 1)
    size = int(min(section["batch_size"], rows + len(prompts)) * beams)
    return cache_bytes(
        meta_model.config, batch_size=size, length=length, element_size=meta_model.dtype.itemsize
    )


def cache_bytes(config: PretrainedConfig, *, batch_size: int, length: int, element_size: int) -> int:
    """The bytes of the keys and values of all layers for texts of `length` tokens.

    Two tensors of (batch, key-value heads, length, head size) a layer; source: transformers' DynamicCache.
    """
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", 0)
    if not heads:  # a state-space model, whose state does not grow with the text
        return 0
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * batch_size * heads * size * length * element_size)


def merged_bytes(recipe: Recipe, meta_model: MetaModel) -> int:
    """Bytes of the merged model in the dtype that it is saved in."""
    dtype = recipe["merge"].get("dtype", recipe["base_model"]["dtype"]) if "merge" in recipe else "auto"
    return _unquantized_bytes(meta_model, dtype)


def exported_bytes(recipe: Recipe, meta_model: MetaModel) -> int:
    """Bytes of the GGUF file: 16 bits a weight, or 8 and a scale of 16 bits for every 32."""
    file = _unquantized_bytes(meta_model, "bfloat16")
    return file * 34 // 64 if recipe["export"]["outtype"] == "q8_0" else file


def _unquantized_bytes(meta_model: MetaModel, dtype: str) -> int:
    import torch

    size: int = (meta_model.dtype if dtype == "auto" else getattr(torch, dtype)).itemsize
    return merged_parameters(meta_model.tuned) * size


def autocast(train: Mapping[str, Any]) -> torch.dtype | None:
    """The dtype of mixed precision; TRL takes bfloat16 unless the section says otherwise."""
    import torch

    if train.get("fp16"):
        return torch.float16
    return torch.bfloat16 if train.get("bf16") in (None, True) else None


def checkpointed(train: Mapping[str, Any]) -> int:
    """Every how many layers activations are recomputed, 0 for none."""
    every: int = train.get("activation_checkpointing_kwargs", {}).get("every_n_layers", 1)
    return every if train.get("activation_checkpointing") else 0


def _train(recipe: Recipe, meta_model: MetaModel, batch: Batch, *, device: str) -> Parts:
    """What stays from step to step, and the phase of a step (or of an evaluation) that takes most."""
    train, unpacked = recipe["train"], meta_model.weights.unpacked
    checkpointing, mixed = checkpointed(train), autocast(train)
    step = step_memory(meta_model.tuned, batch, checkpointing=checkpointing, autocast=mixed, device=device)
    saved = step.saved
    # bitsandbytes unpacks one weight at a time, forward and backward (MatMul4Bit in its autograd).
    phases: list[Parts] = [
        {"activations": saved, "logits_and_loss": step.loss - saved},
        {"activations": saved, "forward_pass": step.forward - saved + unpacked},
        {"activations": saved, "backward_pass": step.backward - saved + unpacked},
    ]
    if train.get("eval_strategy", "no") != "no":
        size = train.get("per_device_eval_batch_size", 8)
        losses = _losses(recipe, meta_model, batch, size=size, autocast=mixed, device=device)
        phases.append({"evaluation": losses + unpacked})
    largest: Parts = max(phases, key=_total)
    kept = _loaded(meta_model) | {"optimizer_state": optimizer_bytes(meta_model.tuned, train)}
    overhead = {"torch_overhead": _overhead(meta_model, batch, step, dtype=mixed)} if device != "cuda" else {}
    return kept | overhead | largest


def _evaluate(recipe: Recipe, meta_model: MetaModel, batch: Batch, *, device: str) -> Parts:
    working = {"generation_cache": generation_cache(recipe, meta_model, batch.length)}
    if "eval" in recipe["dataset"]:
        size = recipe["evaluate"]["batch_size"]
        losses = _losses(recipe, meta_model, batch, size=size, autocast=None, device=device)
        working = max(working, {"loss": losses}, key=_total)
    loaded = _loaded(meta_model)
    if dtype := recipe["evaluate"].get("dtype"):
        loaded["weights"] = _unquantized_bytes(meta_model, dtype)
    return {**loaded, "unpacked_weight": meta_model.weights.unpacked, **working}


def _merge(recipe: Recipe, meta_model: MetaModel) -> Parts:
    """The adapter, one weight with its difference in float32, and all weights where they are needed at once.

    Else the model that is compared is loaded as far as it fits.
    """
    largest = max(int(tensor.numel()) for tensor in meta_model.tuned.parameters())
    weights = {"weights": merged_bytes(recipe, meta_model)} if meta_model.whole_merge else {}
    return {
        **weights,
        "adapter": _adapter_bytes(meta_model.tuned),
        "weight_being_merged": 2 * 4 * largest,
    }


def _export(recipe: Recipe, meta_model: MetaModel) -> Parts:
    """The merged model and the exported one, which transformers reads before it has a model to put it in."""
    merged = merged_bytes(recipe, meta_model)
    return {"weights": merged, "exported_weights": 2 * merged}


def _loaded(meta_model: MetaModel) -> Parts:
    """The base model as it is loaded, and the adapter."""
    return {
        "weights": meta_model.weights.stored,
        "quantization_constants": meta_model.weights.constants,
        "adapter": _adapter_bytes(meta_model.tuned),
    }


def _total(parts: Parts) -> int:
    return sum(parts.values())


def _losses(
    recipe: Recipe,
    meta_model: MetaModel,
    batch: Batch,
    *,
    size: int,
    autocast: torch.dtype | None,
    device: str,
) -> int:
    """What the losses of an evaluation take beside weights, for rows as long as the longest of training."""
    length = recipe["train"]["max_length"] if batch.flat else batch.length
    rows = Batch(tuple(range(size)), length, masked=size > 1)
    return evaluation_bytes(meta_model.tuned, rows, autocast=autocast, device=device)


def _adapter_bytes(tuned: PeftModel) -> int:
    added = (tensor for name, tensor in tuned.named_parameters() if not is_base(name))
    return sum(map(parameter_bytes, added))


def _overhead(meta_model: MetaModel, batch: Batch, step: StepMemory, *, dtype: torch.dtype | None) -> int:
    """The bytes that a CPU's heap and torch's libraries take beside tensors; `dtype` is that of logits."""
    from loracook.model.cpu_loss import keeps_logits

    tuned, loss = meta_model.tuned, step.loss - step.saved
    positions = batch.length if batch.flat else len(batch.rows) * batch.length
    if keeps_logits(tuned, positions, dtype or meta_model.dtype):
        return LIBRARIES + round(COPIES * loss + HOLES_KEPT * step.saved)
    share = min(HOLES + HOLES_A_MODULE * len(tuned.base_model.targeted_module_names), MOST_HOLES)
    return LIBRARIES + round(share * loss)
