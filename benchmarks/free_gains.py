"""The quickstart's training with and without PEFT's copies of inputs: losses, seconds and peak memory.

    python benchmarks/free_gains.py [--steps 20] [--runs 3]

In bfloat16, since the copies are left out where autocast undoes them. Each run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import loracook
from loracook.machine.memory import keep_freed_memory

QUICKSTART = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
SIDES = ("with copies", "without copies")
GB = 1e6
"""ru_maxrss counts KiB."""


def train(side: str, steps: int) -> dict[str, Any]:
    """Train so many steps; the losses, the seconds, and the peak memory in GB."""
    from loracook.training.one_order import CASTS

    keep_freed_memory()
    settings = (
        f"train.max_steps={steps}",
        "train.bf16=true",
        "train.logging_steps=1",
        "base_model.dtype=bfloat16",
    )
    with tempfile.TemporaryDirectory() as folder:
        sft = loracook.trainer(loracook.load(QUICKSTART, settings), Path(folder))
        if side == SIDES[0]:
            sft.speedups.remove(CASTS)
        began = time.monotonic()
        sft.train()
        seconds = time.monotonic() - began
    losses = [entry["loss"] for entry in sft.state.log_history if "loss" in entry]
    return {
        "losses": losses,
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GB,
    }


def main() -> None:
    """Run both sides in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(train(asked.side, asked.steps)))
        return
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(asked.runs):
        for side, runs in found.items():
            command = [sys.executable, __file__, "--side", side, "--steps", str(asked.steps)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs.append(json.loads(output.splitlines()[-1]))
    print("| | seconds of training | peak GB |\n|---|---:|---:|")
    for side, runs in found.items():
        seconds, peak = (statistics.median(run[name] for run in runs) for name in ("seconds", "peak"))
        print(f"| {side} | {seconds:.1f} | {peak:.2f} |")
    losses = [run["losses"] for runs in found.values() for run in runs]
    same = all(each == losses[0] for each in losses)
    print(f"\nlosses of {len(losses[0])} steps: {'the same bits' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
