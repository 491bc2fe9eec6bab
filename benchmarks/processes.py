"""The quickstart's training in one process and in two, on the processor of this machine.

Sixteen steps of `loracook run --only train`, each number of processes with its share of the threads. States
the seconds of the steps, the memory of a process, and how far the losses are apart.

    python benchmarks/processes.py [--processes 1 2]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
CHANGES = (
    "train.max_steps=16",
    "train.num_train_epochs=null",
    "train.logging_steps=1",
    "train.save_steps=100",
)


def main() -> None:
    """Print a line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    first = None
    for count in options.processes:
        with tempfile.TemporaryDirectory() as runs:
            train = trained(Path(runs), count)
            losses = [entry["loss"] for entry in log(train) if "loss" in entry]
            first = first or losses
            show(count, json.loads((train / "record.json").read_text())["result"], apart(first, losses))


def trained(runs: Path, count: int) -> Path:
    """The folder of a training in so many processes."""
    changes = [part for change in CHANGES for part in ("--set", change)]
    command = [sys.executable, "-m", "loracook", "run", str(RECIPE), "--only", "train", "--runs", str(runs)]
    subprocess.run([*command, "--processes", str(count), *changes], check=True, capture_output=True)
    return next(runs.glob("*/train-*"))


def log(train: Path) -> list[dict[str, Any]]:
    """The entries of its log."""
    return [json.loads(line) for line in (train / "log.jsonl").read_text().splitlines()]


def apart(ours: list[float], theirs: list[float]) -> float:
    """The largest difference of two losses of a step, relative to the first."""
    return max(abs(one - other) / one for one, other in zip(ours, theirs, strict=True))


def show(count: int, result: dict[str, Any], difference: float) -> None:
    """Print a line."""
    seconds, memory = result["metrics"]["train_runtime"], result["memory"]["measured_bytes"]
    print(
        f"{count} processes  {seconds:6.1f} s  {memory / 1e9:5.2f} GB each  losses {difference:.1e} apart",
        flush=True,
    )


if __name__ == "__main__":
    main()
