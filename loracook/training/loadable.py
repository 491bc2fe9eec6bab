"""Whether a checkpoint fits a trainer: all that transformers loads of it is compared with the trainer's own.

A seal has no key, so a checkpoint may be a stranger's. Moments of another shape than the weights, for one,
end the process in torch's native code.
"""

from __future__ import annotations

import logging
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.store.files import manifest
from loracook.store.read_back import NUMBER, read_json
from loracook.training.checkpoints import STATE, best

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from trl import SFTTrainer

ADAPTER, OPTIMIZER, SCHEDULER = "adapter_model.safetensors", "optimizer.pt", "scheduler.pt"
SCALER, RANDOM = "scaler.pt", "rng_state.pth"
READ_INSTEAD = (
    "adapter_model.bin", "config.json", "model.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""Files that transformers would read instead of the adapter, or with it (5.23, Trainer)."""
TEMPLATES = "additional_chat_templates/"
"""The only folder that a tokenizer makes; one with an adapter in it would be loaded as another adapter."""
ENTRIES = {
    "epoch": NUMBER, "max_steps": int, "num_input_tokens_seen": int, "total_flos": NUMBER,
    "train_batch_size": int | None, "best_metric": NUMBER | None, "best_global_step": int | None,
    "log_history": [{"step": int, str: NUMBER | None}], "stateful_callbacks": dict,
}  # fmt: skip
"""What is read of transformers' trainer state besides the step (5.23, TrainerState)."""


def misfit(checkpoint: Path, sft: SFTTrainer) -> str | None:
    """Why a sealed checkpoint, or the best one that it names, cannot be loaded, or None when it can."""
    for folder in filter(None, (checkpoint, best(checkpoint))):
        for name in manifest(folder)["files"]:
            if name in READ_INSTEAD or ("/" in name and not name.startswith(TEMPLATES)):
                return f"{name} is not of an adapter's checkpoint"
    for path, fits in _checks(checkpoint, sft):
        if not path.is_file():
            return f"{path.name} is missing"
        try:
            fitting = fits(path, sft)
        except Exception:  # whatever a library raises for a file that is not what it expects
            logging.getLogger("loracook").exception("%s cannot be read", path)
            fitting = False
        if not fitting:
            return f"{path.name} does not fit the model"
    return None


def _checks(checkpoint: Path, sft: SFTTrainer) -> Iterator[tuple[Path, Callable[[Path, SFTTrainer], bool]]]:
    yield checkpoint / STATE, _state_fits
    for folder in filter(None, (checkpoint, best(checkpoint))):
        yield folder / ADAPTER, _adapter_fits
    yield checkpoint / OPTIMIZER, _optimizer_fits
    yield checkpoint / SCHEDULER, _scheduler_fits
    if sft.accelerator.scaler is not None:
        yield checkpoint / SCALER, _scaler_fits
    state = checkpoint / RANDOM
    if sft.args.world_size > 1:
        state = checkpoint / f"rng_state_{sft.args.process_index}.pth"
    if state.exists() or not any(checkpoint.glob("rng_state*.pth")):  # else of another number of processes
        yield state, _random_state_fits


def _state_fits(path: Path, sft: SFTTrainer) -> bool:
    from transformers.trainer_callback import ExportableState

    state = read_json(path, ENTRIES)
    callbacks = [*sft.callback_handler.callbacks, sft.control]
    ours = {type(each).__name__: each.state() for each in callbacks if isinstance(each, ExportableState)}
    saved = {name: entry for name, entry in state["stateful_callbacks"].items() if name in ours}
    return set(state) <= {field.name for field in fields(sft.state)} and alike(
        {name: ours[name] for name in saved}, saved
    )


def _adapter_fits(path: Path, sft: SFTTrainer) -> bool:
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(path)
    least, most = (
        get_peft_model_state_dict(sft.model, save_embedding_layers=embeddings) for embeddings in (False, True)
    )
    return set(least) <= set(saved) and alike({name: most.get(name) for name in saved}, saved)


def _optimizer_fits(path: Path, sft: SFTTrainer) -> bool:
    saved, optimizer = _load(path), sft.create_optimizer()
    ours = optimizer.state_dict()["param_groups"]
    if saved.keys() != {"state", "param_groups"} or len(saved["param_groups"]) != len(ours):
        return False
    trials = list(_trials(sft, optimizer))
    settings, parameters = trials[0][0], _parameters(optimizer)
    return all(
        group["params"] == own["params"] and alike(settings, _settings(group))
        for group, own in zip(saved["param_groups"], ours, strict=True)
    ) and all(
        any(alike(states[_key(parameters[number])], state) for _, states in trials)
        for number, state in saved["state"].items()
    )


def _trials(sft: SFTTrainer, optimizer: Optimizer) -> Iterator[tuple[dict[str, Any], dict[Any, Any]]]:
    """The settings of such an optimizer, and its state for a tensor of each shape, after a step on zeros.

    One of 8 bits comes in 32 bits, too, in which transformers keeps the state of embeddings.
    """
    import torch

    kind, settings = sft.get_optimizer_cls_and_kwargs(sft.args, sft.model)
    for bits in [{}, {"optim_bits": 32}] if settings.get("optim_bits") == 8 else [{}]:
        zeros = {_key(each): torch.zeros_like(each, requires_grad=True) for each in _parameters(optimizer)}
        for tensor in zeros.values():
            tensor.grad = torch.zeros_like(tensor)
        trial = kind([{**optimizer.param_groups[0], "params": list(zeros.values())}], **{**settings, **bits})
        if hasattr(trial, "train"):  # schedule-free optimizers
            trial.train()
        trial.step()
        after = trial.state_dict()
        states = {key: after["state"].get(number, {}) for number, key in enumerate(zeros)}
        yield _settings(after["param_groups"][0]), states


def _parameters(optimizer: Optimizer) -> list[Parameter]:
    """The parameters that an optimizer trains, in the order in which its state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _key(tensor: Tensor) -> tuple[object, object]:
    return tensor.shape, tensor.dtype


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group; schedulers add the first learning rate."""
    return {name: value for name, value in group.items() if name not in ("params", "initial_lr")}


def _scheduler_fits(path: Path, sft: SFTTrainer) -> bool:
    import torch
    from transformers import get_scheduler

    groups = [{"params": [torch.zeros(1)]} for _ in sft.create_optimizer().param_groups]
    ours = get_scheduler(
        sft.args.lr_scheduler_type,
        torch.optim.SGD(groups, lr=1.0),
        num_warmup_steps=0,
        num_training_steps=2,
        scheduler_specific_kwargs=sft.args.lr_scheduler_kwargs,
    )
    return alike(ours.state_dict(), _load(path))


def _scaler_fits(path: Path, sft: SFTTrainer) -> bool:
    return alike(sft.accelerator.scaler.state_dict(), _load(path))


def _random_state_fits(path: Path, sft: SFTTrainer) -> bool:
    import numpy
    import torch

    saved = _load(path)
    random.Random().setstate(saved["python"])
    numpy.random.RandomState().set_state(saved["numpy"])
    torch.Generator().set_state(saved["cpu"])
    return True


def _load(path: Path) -> Any:
    """What torch.save wrote, weights only as transformers reads it, and nothing that has to be unpacked."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed, which torch.save does not do")
    with safe_globals():
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def alike(ours: Any, saved: Any) -> bool:
    """Whether what was saved has the shape of ours: its keys and lengths, and tensors laid out alike."""
    import torch

    if isinstance(ours, torch.Tensor):
        return type(saved) is type(ours) and _layout(ours) == _layout(saved) and saved.device.type == "cpu"
    if isinstance(ours, dict):
        same = isinstance(saved, dict) and ours.keys() == saved.keys()
        return same and all(alike(value, saved[key]) for key, value in ours.items())
    if isinstance(ours, list | tuple):
        same = isinstance(saved, list | tuple) and len(ours) == len(saved)
        return same and all(map(alike, ours, saved))
    if isinstance(ours, int | float):
        return isinstance(saved, int | float)
    return isinstance(saved, type(ours))


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.layout, tensor.stride()
