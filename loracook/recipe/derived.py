"""What follows from a recipe alone: its sources, how many rows and steps at most, whether it evaluates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loracook.errors import Path
from loracook.recipe.step_counts import fixed_steps, steps

Data = dict[str, Any]

LOCAL = ("./", "../", "package://")
READERS = ("json", "csv", "parquet", "text")  # paths that name how 'data_files' are read
OWN_ROWS = ("split", "path", "data_files", "name", "revision")  # evaluation rows with a source of their own
SPLITTING = ("bfd_split", "wrapped")  # packing that makes several rows of a long one


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
