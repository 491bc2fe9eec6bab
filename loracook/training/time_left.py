"""How long the rest of training takes, its evaluations included, from the steps and evaluations so far."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

FORWARD = 1 / 3
"""The share of a forward pass in a training step, for evaluations before the first is measured."""


class Stopwatch:
    """Seconds of the steps and of the evaluations of a run, apart from each other."""

    def __init__(self, first: int) -> None:
        self.first, self.began, self.stepped = first, time.monotonic(), time.monotonic()
        self.evaluating, self.evaluations = 0.0, 0

    def step(self) -> None:
        """Take note of the end of a step."""
        self.stepped = time.monotonic()

    def evaluation(self) -> None:
        """Take note of the end of an evaluation, which follows a step at once."""
        self.evaluating += time.monotonic() - self.stepped
        self.evaluations += 1

    @property
    def training(self) -> float:
        """Seconds in steps up to the end of the last one."""
        return max(self.stepped - self.began - self.evaluating, 1e-9)

    def left(self, args: TrainingArguments, state: TrainerState, eval_batches: int) -> float:
        """Seconds for the steps and the evaluations that are still to come."""
        step: float = self.training / max(state.global_step - self.first, 1)
        passes = args.gradient_accumulation_steps * args.per_device_train_batch_size
        guess = step * FORWARD * eval_batches * args.per_device_eval_batch_size / passes
        evaluation: float = self.evaluating / self.evaluations if self.evaluations else guess
        steps_left: int = state.max_steps - state.global_step
        return step * steps_left + evaluation * evaluations_left(args, state)


def evaluations_left(args: TrainingArguments, state: TrainerState) -> int:
    """How many evaluations follow a step that has just ended, one right after it included.

    Source: transformers 5.23, DefaultFlowCallback.
    """
    if args.eval_strategy == "no":
        return 0
    delay: int = math.ceil(args.eval_delay)
    if args.eval_strategy == "epoch":
        epoch, epochs = math.ceil(state.epoch or 0), int(state.num_train_epochs)
        return max(epochs - max(int(epoch), delay, 1) + 1, 0)
    done = max(int(state.global_step), delay) - 1
    steps, every = int(state.max_steps), int(state.eval_steps)
    return max(steps // every - done // every + (steps % every > 0), 0)
