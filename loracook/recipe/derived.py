"""What follows from a recipe alone: its sources, and how many rows and optimizer steps it takes.

Steps are counted as in transformers 5.23: Trainer.set_initial_training_values, Trainer._run_epoch and
TrainingArguments.get_warmup_steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loracook.errors import Path

Data = dict[str, Any]

OWN_ROWS = ("split", "path", "data_files", "name", "revision")  # evaluation rows with a source of their own
SPLITTING = ("bfd_split", "wrapped")  # packing that makes several rows of a long one


def sources(data: Data) -> Iterator[tuple[Path, Data]]:
    """Every source of training rows with its path."""
    dataset = data["dataset"]
    if "sources" not in dataset:
        yield ("dataset",), dataset
    for index, source in enumerate(dataset.get("sources", ())):
        yield ("dataset", "sources", index), source


def batch(data: Data) -> int:
    """The rows of one optimizer step on one device."""
    train = data["train"]
    return int(train["per_device_train_batch_size"] * train.get("gradient_accumulation_steps", 1))


def most_rows(data: Data) -> int | None:
    """The rows that are read at most, None where the recipe sets no limit."""
    limits = [source.get("rows") for _, source in sources(data)]
    return None if None in limits else sum(filter(None, limits))


def held_out(data: Data, sizes: Sequence[int]) -> list[int]:
    """How many rows of each source are held out for evaluation, in proportion to its size."""
    wanted, total = data["dataset"].get("eval", {}), sum(sizes)
    if not wanted or set(wanted) & set(OWN_ROWS):
        return [0] * len(sizes)
    count = wanted["rows"] if "rows" in wanted else max(1, round(wanted["fraction"] * total))
    exact = [count * size / total for size in sizes]
    held = [int(share) for share in exact]
    for index in sorted(range(len(sizes)), key=lambda index: held[index] - exact[index])[: count - sum(held)]:
        held[index] += 1
    return held


def most_steps(data: Data) -> int | None:
    """The optimizer steps on one device at most, None where only the data can tell."""
    train, rows = data["train"], _most_trained(data)
    if train.get("packing") and train.get("packing_strategy") in SPLITTING:
        rows = None
    return fixed_steps(train) if rows is None else steps(train, rows).total


def _most_trained(data: Data) -> int | None:
    """The rows that train at most, those that a weight repeats among them; None without a limit."""
    if most_rows(data) is None:
        return None
    found = [source for _, source in sources(data)]
    held = held_out(data, [source["rows"] for source in found])
    left = [(source["rows"] - out, source.get("weight", 1)) for source, out in zip(found, held, strict=True)]
    trained: int = sum(int(weight) * rows + round(weight % 1 * rows) for rows, weight in left)
    return trained if trained > 0 else None  # of held out more than there are, another rule tells


def evaluates(data: Data) -> bool:
    """Whether rows are evaluated during training."""
    return bool(data["train"].get("eval_strategy", "no") != "no")


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
