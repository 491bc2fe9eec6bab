"""The callback that times optimizer steps; transformers demands a subclass, so a trial imports this late."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from loracook.machine import upstream
from loracook.tuning.measured import Trial

if TYPE_CHECKING:
    from trl import SFTTrainer


class Steps(TrainerCallback):
    """Keeps loss, tokens and seconds of each step, and ends training once enough are measured.

    That is after `proven` steps, once the standard error of the speed is `enough`, or after so many seconds.
    """

    def __init__(self, trainer: SFTTrainer, seconds: float, *, proven: int, enough: float) -> None:
        self.trainer, self.limit, self.proven, self.enough = trainer, seconds, proven, enough
        self.losses, self.tokens, self.seconds = list[float](), list[int](), list[float]()
        self.began = self.first = 0.0
        self.counted = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock; what was tried before the first step is not counted."""
        self.began = self.first = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, once the device has finished."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now, tokens = time.monotonic(), upstream.trained_tokens(self.trainer)
        self.seconds.append(now - self.began)
        self.tokens.append(tokens - self.counted)
        self.began, self.counted = now, tokens
        known = self.trial().spread < self.enough or now - self.first > self.limit
        control.should_training_stop |= len(self.seconds) > self.proven and known

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:
        """Keep the loss of the step."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def trial(self) -> Trial:
        """What was measured."""
        return Trial(tuple(self.losses), tuple(self.tokens), tuple(self.seconds))
