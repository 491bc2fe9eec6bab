"""Optimizer steps and tokens of a training run, counted as transformers' Trainer counts them.

Source: transformers 5.23, Trainer.set_initial_training_values, Trainer._run_epoch and
TrainingArguments.get_warmup_steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Steps:
    """Optimizer steps of a run on one device; `batches` are forward passes in an epoch."""

    total: int
    per_epoch: int
    warmup: int
    batches: int
    effective_batch_size: int


def steps(train: Mapping[str, Any], rows: int) -> Steps:
    """The steps that a `train` section makes of so many prepared rows, on one device."""
    size, accumulation = train["per_device_train_batch_size"], train.get("gradient_accumulation_steps", 1)
    batches = rows // size if train.get("dataloader_drop_last") else math.ceil(rows / size)
    per_epoch = max(math.ceil(batches / accumulation), 1)
    total = fixed_steps(train) or math.ceil(train["num_train_epochs"] * per_epoch)
    return Steps(total, per_epoch, warmup(train, total), batches, size * accumulation)


def fixed_steps(train: Mapping[str, Any]) -> int | None:
    """The number of steps where the section sets it, whatever the data."""
    given = train.get("max_steps") or -1
    return given if given > 0 else None


def warmup(train: Mapping[str, Any], total: int) -> int:
    """The steps over which the learning rate rises: a number of steps, or below 1 a share of all."""
    given = train.get("warmup_steps", 0)
    return int(given) if given >= 1 else math.ceil(total * given)
