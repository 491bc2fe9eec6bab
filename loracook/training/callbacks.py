"""What loracook adds to TRL's training loop: progress, a true log, sealed checkpoints, and when to stop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import DivergedError
from loracook.machine import signals
from loracook.progress import Progress
from loracook.training.checkpoints import STATE, best, final, newest_first, prove, seal, tokens
from loracook.units import duration

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import SFTTrainer


def callbacks(
    sft: SFTTrainer, log: Path, made: Mapping[str, Any], progress: Progress
) -> list[TrainerCallback]:
    """The callbacks of a training run.

    Args:
        sft: whose count of tokens goes on from a checkpoint; by itself it would begin anew.
        log: the file that gets one JSON object a line.
        made: what decides the run, for the manifests of its checkpoints.
        progress: is told how far it is.
    """
    # transformers demands subclasses, and is imported only once training starts.
    from transformers import TrainerCallback
    from transformers.trainer_utils import rotate_checkpoints

    kept = Path(sft.args.output_dir).parent

    class Report(TrainerCallback):
        """Draws the progress and writes the log, true values and all."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            log.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history), "utf-8")
            self.began, self.first, self.last = time.monotonic(), state.global_step, ""
            progress.advance(state.global_step, state.max_steps, "first step")

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            with log.open("a", encoding="utf-8") as file:
                figures = of_all_tries(logs) if self.first else logs
                file.write(json.dumps({**figures, "step": state.global_step}) + "\n")
            self.last = f"loss {logs['loss']:.3f}" if "loss" in logs else self.last
            refuse_infinite(logs, state.global_step, kept)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            done = state.global_step - self.first
            left = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
            progress.advance(state.global_step, state.max_steps, f"{self.last}  {duration(left)} left")

    class Guard(TrainerCallback):
        """Stops before a gradient that is no finite number reaches the weights."""

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            if not args.fp16:  # float16's loss scaling meets infinite gradients by design and skips them
                refuse_infinite({"grad_norm": gradient_norm(model)}, state.global_step + 1, kept)

    class Checkpoints(TrainerCallback):
        """Moves each checkpoint in when it is whole; asks for one after the first step and upon a signal."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.first = state.global_step + 1
            if state.global_step:
                resumed = kept / f"checkpoint-{state.global_step}"
                sft._total_train_tokens = tokens(resumed)
                state.best_model_checkpoint = (found := best(resumed)) and str(found)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if signals.stop_requested():
                control.should_save = control.should_training_stop = True
            if state.global_step == self.first and args.save_strategy != "no":
                control.should_save = True  # better now than hours later, should it not work

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            last = "train_loss" in logs  # and next the best is loaded
            if last and args.load_best_model_at_end and state.best_model_checkpoint:
                prove(Path(state.best_model_checkpoint))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if state.best_model_checkpoint == str(written):
                state.best_model_checkpoint = str(final(written))
            if not state.is_world_process_zero:
                return
            state.save_to_json(str(written / STATE))
            seal(written, made, tokens=sft._total_train_tokens)
            if state.global_step == self.first:
                prove(final(written))
            rotate_checkpoints(str(kept), args.save_total_limit, state.best_model_checkpoint)

    return [Report(), Guard(), Checkpoints()]


def of_all_tries(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a run that went on from a checkpoint, without those that count the last try alone."""
    return {name: value for name, value in figures.items() if not name.startswith("train_")}


def refuse_infinite(logs: dict[str, Any], step: int, checkpoints: Path) -> None:
    """Raise DivergedError when a logged loss or gradient norm is no finite number."""
    for name in ("loss", "eval_loss", "grad_norm"):
        value = logs.get(name, 0.0)
        if not math.isfinite(value):
            raise DivergedError(
                f"training diverged: {name} is {value} at step {step}; lower train.learning_rate, raise "
                f"train.warmup_steps, or look for bad rows in the data; {_kept(checkpoints)}"
            )


def _kept(checkpoints: Path) -> str:
    made = newest_first(checkpoints)
    return f"{made[0].name} is kept" if made else "there is no checkpoint yet"


def gradient_norm(model: Any) -> float:
    """The largest absolute value among the gradients; a NaN or infinity anywhere comes through."""
    import torch

    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients:
        return 0.0
    return float(torch.stack([norm.float() for norm in torch._foreach_norm(gradients, math.inf)]).max())
