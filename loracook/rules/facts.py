"""What follows from a recipe alone: its sources, how many rows and steps at most, whether it evaluates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from loracook.errors import Path

Data = dict[str, Any]

LOCAL = ("./", "../", "package://")
READERS = ("json", "csv", "parquet", "text")  # paths that name how 'data_files' are read


def sources(data: Data) -> Iterator[tuple[Path, Data]]:
    """Every source of training rows with its path."""
    dataset = data["dataset"]
    if "sources" not in dataset:
        yield ("dataset",), dataset
    for index, source in enumerate(dataset.get("sources", ())):
        yield ("dataset", "sources", index), source


def is_local(source: Data) -> bool:
    """Whether a model or the rows of a source lie on this machine, which the spelling alone decides."""
    path = str(source.get("path") or source.get("name_or_path"))
    return path.startswith(LOCAL) or (path in READERS and "data_files" in source)


def batch(data: Data) -> int:
    """The rows of one optimizer step on one device."""
    train = data["train"]
    return int(train["per_device_train_batch_size"] * train.get("gradient_accumulation_steps", 1))


def most_rows(data: Data) -> int | None:
    """The rows that are read at most, None where the recipe sets no limit."""
    limits = [source.get("rows") for _, source in sources(data)]
    return None if None in limits else sum(filter(None, limits))


def most_steps(data: Data) -> int | None:
    """The optimizer steps on one device at most, None where only the data can tell."""
    if "max_steps" in data["train"]:
        return int(data["train"]["max_steps"])
    found = [source for _, source in sources(data)]
    if most_rows(data) is None or any(source["format"] in ("auto", "oasst") for source in found):
        return None
    rows: float = sum(source["rows"] * source.get("weight", 1) for source in found)
    return math.ceil(math.ceil(rows / batch(data)) * float(data["train"]["num_train_epochs"]))


def evaluates(data: Data) -> bool:
    """Whether rows are evaluated during training."""
    return bool(data["train"].get("eval_strategy", "no") != "no")
