"""What a training on several processes proves of itself; each proof that fails ends it by name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from loracook.errors import MachineError
from loracook.training import group
from loracook.training.processes import DDP, FSDP2
from loracook.training.sharding import is_sharded

if TYPE_CHECKING:
    from loracook.training.one_order import OneOrderTrainer

BOUND, SHORT_BOUND = 1e-4, 2e-2
"""How far the first loss may be from that of one process, relative to it: in float32, and in 16 bits."""

WRAPPER = "DistributedDataParallel"
"""What synchronizes the gradients of what is trained."""
REPORT = "train with --processes 1, and report it"


class Proofs(TrainerCallback):
    """Holds the processes against each other: their weights, and the first loss against that of one process.

    The loss is not held against anything where training draws `random` numbers, other ones in each process.
    """

    def __init__(self, trainer: OneOrderTrainer, *, random: bool) -> None:
        self.trainer, self.random = trainer, random
        self.facts: dict[str, Any] = {}
        self.first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compare the weights that training starts from."""
        self.first = state.global_step + 1
        check_same_weights(self.trainer.model, "before the first step")

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep what the first step takes, and nothing of what was tried before it."""
        if state.global_step + 1 == self.first:
            self.trainer.keep_first_step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compare the loss of the first step, before it is taken."""
        if state.global_step + 1 == self.first:
            together, alone = self.trainer.loss_together(), self.trainer.loss_alone()
            self.facts |= {"first_loss": together, "first_loss_alone": alone}
            short = args.bf16 or args.fp16 or self.trainer.model.dtype.itemsize < 4
            bound = (SHORT_BOUND if short else BOUND) * abs(alone)
            if not self.random and not abs(together - alone) <= bound:
                losses = f"{together:.6f}, and {alone:.6f} for the same rows in one process"
                raise MachineError(f"the first loss of {group.size()} processes is {losses}; {REPORT}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compare the weights after the first step, and after the last."""
        if state.global_step == self.first:
            self.facts["strategy"] = strategy(self.trainer)
            check_same_weights(self.trainer.model, f"after step {self.first}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compare the weights that are saved."""
        self.facts["weights"] = check_same_weights(self.trainer.model, "at the end")


def strategy(trainer: OneOrderTrainer) -> str:
    """The strategy that the trainer's model runs with; raises MachineError where it is not the chosen one."""
    wrapper = type(trainer.model_wrapped).__name__
    if wrapper != WRAPPER:
        raise MachineError(f"{group.size()} processes train a {wrapper}, each by itself; {REPORT}")
    runs = FSDP2 if is_sharded(trainer.model) else DDP
    if runs != trainer.strategy:
        raise MachineError(f"the processes train with {runs}, not with {trainer.strategy}; {REPORT}")
    return runs


def check_same_weights(model: Any, when: str) -> str:
    """The SHA-256 of the trained weights; raises MachineError where a process has others."""
    digests = group.gathered(weights_digest(model))
    for number, digest in enumerate(digests):
        if digest != digests[0]:
            others = f"the trained weights of process {number} are not those of process 0 {when}"
            raise MachineError(f"{others}; {REPORT}")
    return digests[0]


def weights_digest(model: Any) -> str:
    """The SHA-256 of all trained weights, which every process has whole."""
    import torch

    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            numbers = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
            digest.update(name.encode() + numbers.tobytes())
    return digest.hexdigest()
