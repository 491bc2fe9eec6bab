"""What follows from a recipe alone: its sources, and how many rows and optimizer steps it takes.

Steps are counted as in transformers 5.23: Trainer.set_initial_training_values, Trainer._run_epoch and
TrainingArguments.get_warmup_steps.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loracook.errors import Path

Data = dict[str, Any]

OWN_ROWS = ("split", "path", "data_files", "name", "revision")  # evaluation rows from their own source
OTHER_TOKENIZER = ("tokenizer", "name_or_path")
SPLITTING = ("bfd_split", "wrapped")  # packing strategies that split long rows


def sources(data: Data) -> Iterator[tuple[Path, Data]]:
    """Every source of training rows, with its path in the recipe."""
    dataset = data["dataset"]
    if "sources" not in dataset:
        yield ("dataset",), dataset
    for index, source in enumerate(dataset.get("sources", ())):
        yield ("dataset", "sources", index), source


def all_sources(data: Data) -> Iterator[tuple[Path, Data]]:
    """Every source of rows: for training, for evaluation if these have one of their own, and further ones."""
    training = list(sources(data))
    yield from training
    own = data["dataset"].get("eval", {})
    if not own.keys().isdisjoint(("path", "data_files")):
        inherited = {key: source[key] for _, source in training[:1] for key in ("path",) if key in source}
        yield ("dataset", "eval"), inherited | own
    for name, source in data.get("evaluate", {}).get("also", {}).items():
        yield ("evaluate", "also", name), source


def own_tasks(data: Data) -> Iterator[tuple[Path, Data]]:
    """Every task of `lm_eval` that the recipe describes itself, with its path in the recipe."""
    for index, task in enumerate(data.get("lm_eval", {}).get("tasks", ())):
        if not isinstance(task, str):
            yield ("lm_eval", "tasks", index), task


def other_tokenizer(data: Mapping[str, Any]) -> str | None:
    """Where a recipe takes its tokenizer from; None for the base model's own."""
    section, key = OTHER_TOKENIZER
    name: str | None = data.get(section, {}).get(key)
    return name


def batch(data: Mapping[str, Any]) -> int:
    """The effective batch size on one device: the rows of one optimizer step."""
    train = data["train"]
    return int(train["per_device_train_batch_size"] * train.get("gradient_accumulation_steps", 1))


def first_rows(data: Mapping[str, Any], processes: int = 1) -> int | None:
    """How many rows training takes, None where `max_steps` does not set it; the recipe is each process's."""
    steps = fixed_steps(data["train"])
    return None if steps is None else steps * batch(data) * processes


def most_rows(data: Data) -> int | None:
    """The most rows that can be read, None where the recipe sets no limit."""
    limits = [source.get("rows") for _, source in sources(data)]
    return None if None in limits else sum(filter(None, limits))


def held_out(data: Data, sizes: Sequence[int]) -> list[int]:
    """How many rows of each source are held out for evaluation, in proportion to its size."""
    held, total = data["dataset"].get("eval", {}), sum(sizes)
    if not held or set(held) & set(OWN_ROWS):
        return [0] * len(sizes)
    count = held["rows"] if "rows" in held else max(1, round(held["fraction"] * total))
    exact = [count * size / total for size in sizes]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: count - sum(counts)]:
        counts[index] += 1
    return counts


def most_steps(data: Data) -> int | None:
    """The most optimizer steps a run can take on one device, None where that depends on the data."""
    train, rows = data["train"], _most_trained(data)
    if train.get("packing") and train.get("packing_strategy") in SPLITTING:
        rows = None
    return fixed_steps(train) if rows is None else steps(train, rows).total


def _most_trained(data: Data) -> int | None:
    """The most training rows, counting those that a weight repeats; None without a limit."""
    if most_rows(data) is None:
        return None
    limited = [source for _, source in sources(data)]
    held = held_out(data, [source["rows"] for source in limited])
    left = [
        (source["rows"] - out, source.get("weight", 1)) for source, out in zip(limited, held, strict=True)
    ]
    trained: int = sum(int(weight) * rows + round(weight % 1 * rows) for rows, weight in left)
    return trained if trained > 0 else None  # nothing-left-to-train reports the rest


def evaluates(data: Data) -> bool:
    """Whether the recipe evaluates during training."""
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
    """The steps that a `train` section takes for a number of prepared rows, on one device."""
    size, accumulation = train["per_device_train_batch_size"], train.get("gradient_accumulation_steps", 1)
    batches = rows // size if train.get("dataloader_drop_last") else math.ceil(rows / size)
    per_epoch = max(math.ceil(batches / accumulation), 1)
    total = fixed_steps(train) or math.ceil(train["num_train_epochs"] * per_epoch)
    return Steps(total, per_epoch, warmup(train, total), batches, size * accumulation)


def fixed_steps(train: Mapping[str, Any]) -> int | None:
    """The number of steps where `max_steps` sets it, None where it depends on the data."""
    max_steps = train.get("max_steps") or -1
    return max_steps if max_steps > 0 else None


def warmup(train: Mapping[str, Any], total: int) -> int:
    """The number of warmup steps; `warmup_steps` below 1 is a share of all steps."""
    steps = train.get("warmup_steps", 0)
    return int(steps) if steps >= 1 else math.ceil(total * steps)
