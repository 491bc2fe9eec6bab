"""TRL's trainer with an order of rows that a resumed training keeps, and several processes share.

transformers demands a subclass, so this module imports it at its top and is itself imported once training
starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import send_to_device
from peft.helpers import disable_input_dtype_casting
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import RandomSampler, Sampler
from trl import SFTTrainer

from loracook.data.order import Taken
from loracook.machine.upstream import metrics_aside, on_device, use_one_gpu
from loracook.model.adapter import train_in_float32
from loracook.model.cpu_loss import IGNORED, score_trained_positions
from loracook.model.input_casts import casts_are_undone
from loracook.recipe.derived import steps
from loracook.training import group
from loracook.training.processes import FSDP2
from loracook.training.sharding import shard

if TYPE_CHECKING:
    from datasets import Dataset

SHORT = 2
"""Tokens of the row without a loss: the first is no target."""
MIXED = {"bf16": "bfloat16", "fp16": "float16"}
"""torch's names of dtypes by accelerate's names of mixed precisions."""
CASTS = "inputs of adapted layers are not copied to float32, which autocast would undo"
POSITIONS = "logits of trained tokens alone are computed, once each"


class OneOrder(Sampler[int]):
    """An order of rows that the seed and the number of the epoch decide, the same in all processes.

    A random order is one of all usable rows, and those that are not `taken` are passed over. A part of them
    has the length of all, which it is the beginning of. After the rows come ones without a loss, as many as
    give each process as many batches: accelerate would take rows of the beginning a second time.
    """

    def __init__(
        self, order: Sampler[int], trainer: OneOrderTrainer, *, rows: int, taken: Taken, multiple: int
    ) -> None:
        self.order, self.trainer, self.rows, self.taken = order, trainer, rows, taken
        self.filling = -taken.per_epoch % multiple

    def __len__(self) -> int:
        return self.taken.per_epoch + self.filling

    def __iter__(self) -> Iterator[int]:
        yield from group.from_first(self._drawn)
        yield from [self.rows] * self.filling  # the row that `with_masked_row` adds

    def _drawn(self) -> list[int]:
        from accelerate.data_loader import SeedableRandomSampler
        from torch import Generator
        from transformers.trainer_pt_utils import LengthGroupedSampler

        epoch = self.trainer.state.global_step // self._steps_per_epoch
        if isinstance(self.order, SeedableRandomSampler):
            self.order.set_epoch(epoch)
            passing: list[int] = self.taken.prepared(list(self.order)).tolist()
            return passing
        if isinstance(self.order, LengthGroupedSampler):  # which draws from the state of the moment
            self.order.generator = Generator().manual_seed(self.trainer.args.seed + epoch)
        return list(self.order)

    @property
    def _steps_per_epoch(self) -> int:
        """As transformers counts them where it resumes: the epoch in its state may be one of other rows."""
        args = self.trainer.args
        keys = ("gradient_accumulation_steps", "dataloader_drop_last", "max_steps", "num_train_epochs")
        train = {name: getattr(args, name) for name in keys}
        size = args.train_batch_size * group.size()
        return steps(train | {"per_device_train_batch_size": size}, len(self)).per_epoch


class OneOrderTrainer(SFTTrainer):
    """TRL's trainer, which takes the same rows in each step wherever it resumes, and in how many processes.

    Its arguments are those of each process, the `strategy` of all, and which usable rows are `taken`; for
    several, its rows end in one that `with_masked_row` adds. Of the first step that it takes it keeps the
    batches, how many tokens of all processes are in the loss, and the share of this process in it. `speedups`
    says what it does for speed alone.
    """

    def __init__(self, *, strategy: str, taken: Taken, **named: Any) -> None:
        self.strategy, self.taken = strategy, taken
        use_one_gpu(named["args"])
        super().__init__(**named)
        if self.args.fp16:
            train_in_float32(self.model)
        self.speedups: list[str] = []
        if casts_are_undone(self.model, self._autocast()):
            self.speedups.append(CASTS)
        if self.args.device.type == "cpu":
            score_trained_positions(self.model.get_base_model())
            self.speedups.append(POSITIONS)
        self.first_batches: list[Any] | None = None
        self.first_tokens: Any = None
        self.first_share = 0.0

    def _autocast(self) -> Any:
        name = MIXED.get(self.accelerator.mixed_precision)
        return name and getattr(torch, name)

    def train(self, *values: Any, **named: Any) -> Any:
        """Train, without what is proven to change nothing."""
        with disable_input_dtype_casting(self.model, active=CASTS in self.speedups):
            return super().train(*values, **named)

    def _move_model_to_device(self, model: Any, device: Any) -> None:
        """Put the model on a device, or this process's part of it."""
        if self.strategy == FSDP2:
            shard(model, device)
        else:
            super()._move_model_to_device(model, device)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """The model as it trains: one in shards in DDP, which accelerate refuses for GPUs, but not for CPUs.

        DDP passes over the shards (loracook/training/sharding.py), and the adapter is what it synchronizes.
        """
        wrapped = super()._wrap_model(model, training, dataloader)
        if not training or self.strategy != FSDP2 or wrapped is not self.model:
            return wrapped
        prepared = self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
        return DistributedDataParallel(prepared, **self.accelerator.ddp_handler.to_kwargs())

    def keep_first_step(self) -> None:
        """Keep the batches from now on, until `loss_alone` takes them."""
        self.first_batches = []

    def compute_loss(self, model: Any, inputs: Any, *values: Any, **named: Any) -> Any:
        """The loss as TRL computes it, kept in the first step."""
        batch, result = dict(inputs), super().compute_loss(model, inputs, *values, **named)
        if self.first_batches is not None and self.model.training:
            self.first_batches.append(send_to_device(batch, "cpu"))  # it goes to other processes' GPUs
            self.first_tokens = named.get("num_items_in_batch")
            self.first_share += float(result)
        return result

    def loss_alone(self) -> float:
        """The loss of the rows of the first step, those of all processes, as one process computes it."""
        batches, self.first_batches = group.gathered(self.first_batches), None
        with torch.no_grad(), metrics_aside(self), self.compute_loss_context_manager():
            losses = [
                self.compute_loss(self.model, on_device(self, batch), num_items_in_batch=self.first_tokens)
                for each in batches
                for batch in each or ()
            ]
        return float(sum(losses)) / group.size()

    def loss_together(self) -> float:
        """The loss of the first step as the processes have computed it together."""
        return sum(group.gathered(self.first_share)) / group.size()

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        """The order that one process takes the rows in, whose batches are those of all processes together."""
        from accelerate.data_loader import SeedableRandomSampler
        from transformers.trainer_pt_utils import BatchRebalanceSampler

        whole = self.train_dataset if train_dataset is None else train_dataset
        together, divided = self.args.train_batch_size * group.size(), self.args.per_device_train_batch_size
        rows = whole.select(range(len(whole) - 1)) if group.size() > 1 else whole
        self.args.per_device_train_batch_size = together
        try:
            order = super()._get_train_sampler(rows)
        finally:
            self.args.per_device_train_batch_size = divided
        if order is None or isinstance(order, BatchRebalanceSampler):
            return order
        if isinstance(order, RandomSampler):  # as accelerate makes of it
            order = SeedableRandomSampler(range(len(self.taken.marks)), data_seed=self.args.data_seed)
        multiple = together if group.size() > 1 else 1
        return OneOrder(order, self, rows=len(rows), taken=self.taken, multiple=multiple)


def with_masked_row(rows: Dataset) -> Dataset:
    """The rows and one more, without a loss, which fills the batches of the last step of an epoch."""
    from datasets import concatenate_datasets

    ids = rows[0]["input_ids"][:SHORT]
    masked = {"input_ids": ids, "labels": [IGNORED] * len(ids), "seq_lengths": [len(ids)]}
    columns = {name: [masked[name]] for name in rows.column_names}
    return concatenate_datasets([rows, type(rows).from_dict(columns, features=rows.features)])
