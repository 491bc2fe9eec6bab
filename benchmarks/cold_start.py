"""What checking takes: cold, against the bare import of what it takes, and for a thousand recipes at once.

    python benchmarks/cold_start.py [RECIPE]

Prints a table in Markdown: the seconds of each command, all run in turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
RECIPE = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "recipes" / "quickstart.yaml"
RUNS = 25
LORACOOK = str(Path(sys.executable).parent / "loracook")
COMMANDS = {
    '`python -c "import yaml, jsonschema, click"`': [sys.executable, "-c", "import yaml, jsonschema, click"],
    f"`loracook validate recipes/{RECIPE.name}`": [LORACOOK, "validate", str(RECIPE)],
    "`loracook --help`": [LORACOOK, "--help"],
}
COPIES = 1000


class Taken(NamedTuple):
    """The wall-clock and the processor seconds of one run."""

    wall: float
    processor: float


def taken(command: list[str]) -> Taken:
    """The time of one run of a command."""
    wall, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(time.perf_counter() - wall, used)


def thousand() -> Taken:
    """The time of one `validate` of a thousand recipes."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(COPIES):
            (Path(folder) / f"recipe-{number}.yaml").write_text(RECIPE.read_text("utf-8"), encoding="utf-8")
        return taken([LORACOOK, "validate", folder])


def row(name: str, times: list[Taken]) -> str:
    """A line of the table."""
    wall, processor = (median(found) for found in zip(*times, strict=True))
    return f"| {name} | {wall:.3f} | {min(found.wall for found in times):.3f} | {processor:.3f} |"


def main() -> None:
    """Measure everything in turn, again and again."""
    times: dict[str, list[Taken]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(taken(command))
    print("| command | median seconds | least | processor seconds |\n|---|---:|---:|---:|")
    for name, found in times.items():
        print(row(name, found))
    print(row(f"`loracook validate`, {COPIES:,} recipes", [thousand() for _ in range(5)]))


if __name__ == "__main__":
    main()
