"""What checking takes: cold, against the bare import of what it takes, and for a thousand recipes at once.

    python benchmarks/cold_start.py [RECIPE]

Prints a table in Markdown: the median wall-clock seconds of each command, all run in turn.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
RECIPE = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "recipes" / "quickstart.yaml"
RUNS = 15
LORACOOK = str(Path(sys.executable).parent / "loracook")
COMMANDS = {
    '`python -c "import yaml, jsonschema, click"`': [sys.executable, "-c", "import yaml, jsonschema, click"],
    f"`loracook validate recipes/{RECIPE.name}`": [LORACOOK, "validate", str(RECIPE)],
    "`loracook --help`": [LORACOOK, "--help"],
}
COPIES = 1000


def seconds(command: list[str]) -> float:
    """The wall-clock seconds of one run of a command."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def thousand() -> float:
    """The wall-clock seconds of one `validate` of a thousand recipes."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(COPIES):
            (Path(folder) / f"recipe-{number}.yaml").write_text(RECIPE.read_text("utf-8"), encoding="utf-8")
        return seconds([LORACOOK, "validate", folder])


def main() -> None:
    """Measure everything in turn, again and again, and print the medians."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    bare = median(next(iter(times.values())))
    print("| command | seconds | of the import |\n|---|---:|---:|")
    for name, taken in times.items():
        print(f"| {name} | {median(taken):.3f} | {median(taken) / bare:.2f} |")
    print(f"| `loracook validate`, {COPIES:,} recipes | {median(thousand() for _ in range(3)):.2f} | |")


if __name__ == "__main__":
    main()
