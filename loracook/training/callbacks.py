"""What loracook adds to TRL's training loop: progress, a true log, sealed checkpoints, and when to stop.

transformers demands subclasses, so this module imports it at its top and is itself imported once training
starts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from loracook.errors import DivergedError
from loracook.machine import signals, upstream
from loracook.progress import Progress
from loracook.training import checkpoints, group
from loracook.training.memory_check import MemoryCheck
from loracook.training.time_left import Stopwatch
from loracook.units import duration

if TYPE_CHECKING:
    from trl import SFTTrainer

LOSSES = ("loss", "eval_loss")


class ProgressLog(TrainerCallback):
    """Shows progress, and writes every log entry with its true values to a file, one JSON object a line.

    Entries of training also have `tokens_per_second` since the one before, and peak `memory_bytes` so far.
    """

    def __init__(
        self, trainer: SFTTrainer, log: Path, *, kept: Path, memory: MemoryCheck, progress: Progress
    ) -> None:
        self.trainer, self.log, self.kept, self.progress = trainer, log, kept, progress
        self.watch, self.first_tokens, self.evaluated = Stopwatch(0), 0, 0
        self.memory, self.logged = memory, (0, 0.0)
        self.losses: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the log with the entries of the steps before, when resuming."""
        self.log.unlink(missing_ok=True)  # which may be a hard link
        self.log.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history), "utf-8")
        self.watch = Stopwatch(state.global_step)
        self.first_tokens = upstream.trained_tokens(self.trainer)
        self.logged = self.first_tokens, 0.0
        self.progress.advance(state.global_step, state.max_steps, "first step")

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:
        """Write the entry; a loss or gradient norm that is not finite ends the run."""
        entry = of_all_steps(logs) if self.watch.first else logs
        if "loss" in logs:
            measured = self._measured()
            entry = {**entry, **measured}
            state.log_history[-1].update(measured)  # of which a resumed run makes its log
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "step": state.global_step}) + "\n")
        self.losses |= {name: f"{name.replace('_', ' ')} {logs[name]:.3f}" for name in LOSSES if name in logs}
        # float16's loss scaling meets infinite gradients by design and skips their steps
        refuse_infinite({**logs, "grad_norm": 0.0} if args.fp16 else logs, state.global_step, self.kept)

    def _measured(self) -> dict[str, float]:
        """The speed since the last entry, and the peak of memory where it is known."""
        (tokens, seconds), peak = self.logged, self.memory.peak()
        self.logged = upstream.trained_tokens(self.trainer), self.watch.training
        speed = (self.logged[0] - tokens) / max(self.logged[1] - seconds, 1e-9)
        return {"tokens_per_second": round(speed, 1)} | ({"memory_bytes": peak} if peak else {})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the step, the last losses, the speed, and how long the rest will take."""
        self.watch.step()
        tokens = upstream.trained_tokens(self.trainer) - self.first_tokens
        left = duration(self.watch.left(args, state, self._eval_batches(args)))
        speed = f"{tokens / self.watch.training:,.0f} tokens/s"
        text = "  ".join([*self.losses.values(), speed, f"{left} left"])
        self.progress.advance(state.global_step, state.max_steps, text)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show how far an evaluation is."""
        self.evaluated += 1
        self.progress.advance(
            self.evaluated, self._eval_batches(args), f"evaluating after step {state.global_step}"
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, *, metrics: dict[str, Any], **_: Any) -> None:
        """Keep the loss of an evaluation on the screen."""
        self.watch.evaluation()
        self.evaluated = 0
        self.progress.note(
            f"step {state.global_step}/{state.max_steps}  eval loss {metrics['eval_loss']:.4f}"
        )

    def _eval_batches(self, args: Any) -> int:
        rows = self.trainer.eval_dataset
        return 0 if rows is None else math.ceil(len(rows) / (args.eval_batch_size * args.world_size))


class LastStepLogged(TrainerCallback):
    """Logs the last step, in every process: the loss of an entry is gathered from all of them."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log it."""
        if state.global_step >= state.max_steps and args.logging_strategy != "no":
            control.should_log = True


class FiniteGradients(TrainerCallback):
    """Stops before a gradient that is not finite reaches the weights."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Check the gradients of the step that is about to be taken."""
        if not args.fp16:  # as in ProgressLog.on_log
            refuse_infinite({"grad_norm": largest_gradient(model)}, state.global_step + 1, self.kept)


class SealedCheckpoints(TrainerCallback):
    """Moves each checkpoint in once it is complete; saves one after the first step and upon a signal."""

    def __init__(self, trainer: SFTTrainer, kept: Path, made_by: Mapping[str, Any]) -> None:
        self.trainer, self.kept, self.made_by, self.first = trainer, kept, made_by, 1

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restore the token count and the best checkpoint of the one that is resumed from."""
        self.first = state.global_step + 1
        if state.global_step:
            resumed = self.kept / f"checkpoint-{state.global_step}"
            upstream.set_trained_tokens(self.trainer, checkpoints.tokens(resumed))
            best = checkpoints.best(resumed)
            state.best_model_checkpoint = best and str(best)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop upon a signal; save after the first step, so that a fault shows early, not hours later."""
        if group.any_of(signals.stop_requested()):
            control.should_save = control.should_training_stop = True
        if state.global_step == self.first and args.save_strategy != "no":
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:
        """Verify the best checkpoint right before it is loaded, which follows the last log entry."""
        if "train_loss" in logs and args.load_best_model_at_end and state.best_model_checkpoint:
            checkpoints.verify(Path(state.best_model_checkpoint))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint, move it in, and delete those beyond the limit."""
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        final = checkpoints.final(written)
        if state.best_model_checkpoint == str(written):
            state.best_model_checkpoint = str(final)
        group.gathered(None)  # each process has written its part
        if group.is_first():
            self._move_in(written, args.save_total_limit, state)
        group.gathered(None)

    def _move_in(self, written: Path, limit: int, state: Any) -> None:
        """Seal what all processes have written, and move it in."""
        final = checkpoints.final(written)
        state.save_to_json(str(written / checkpoints.STATE))
        tokens, processes = upstream.trained_tokens(self.trainer), str(group.size())
        checkpoints.seal(written, self.made_by, tokens=tokens, processes=processes)
        if state.global_step == self.first:
            checkpoints.verify(final)
        best = state.best_model_checkpoint
        checkpoints.rotate(self.kept, limit, best and Path(best))


class UntilStep(TrainerCallback):
    """Calls a function with the step and the loss of each log entry; there is one at the last step, too."""

    def __init__(self, last: int, act: Callable[[int, float], None]) -> None:
        self.last, self.act = last, act

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log the last step."""
        control.should_log |= state.global_step == self.last

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:
        """Call the function."""
        if "loss" in logs:
            self.act(state.global_step, logs["loss"])


class BeforeTraining(TrainerCallback):
    """Calls a function with the number of forward passes to come, right before the first one."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self.act = act

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Call it."""
        self.act((state.max_steps - state.global_step) * args.gradient_accumulation_steps)


def of_all_steps(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a resumed run, without those that cover only the steps since it resumed."""
    return {name: value for name, value in metrics.items() if not name.startswith("train_")}


def refuse_infinite(logs: Mapping[str, Any], step: int, kept: Path) -> None:
    """Raise DivergedError when a logged loss or gradient norm is not finite."""
    for name in ("loss", "eval_loss", "grad_norm"):
        value = logs.get(name, 0.0)
        if not math.isfinite(value):
            newest = next(iter(checkpoints.newest_first(kept)), None)
            raise DivergedError(
                f"training diverged: {name} is {value} at step {step}; lower train.learning_rate, raise "
                "train.warmup_steps, or look for bad rows in the data; "
                + (f"{newest.name} is kept" if newest else "no checkpoint was saved yet")
            )


def largest_gradient(model: Any) -> float:
    """The largest absolute value among the gradients; NaN and infinity come through."""
    import torch

    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients:
        return 0.0
    return float(torch.stack([norm.float() for norm in upstream.largest_norms(gradients)]).max())
