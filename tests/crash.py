"""Kill a run at its n-th change of a file, and see the same command finish it with the same results.

`python -m tests.crash 200` tries that many moments, spread over all stages of a run.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loracook.store.files import damage, sha256
from tests import processes
from tests.tiny_recipes import twin_file

AT, COUNT = "LORACOOK_TEST_KILL_AT", "LORACOOK_TEST_COUNT"
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
RESULTS = ("train-*/adapter/*.safetensors", "merge-*/model/*.safetensors", "published/*.safetensors")
TEXTS = ("evaluate-*/generations.jsonl", "evaluate-*/metrics.json")


def arm() -> None:
    """Let this process count its changes of files below `runs`, and kill itself at the one it is to die at."""
    numbers, last, count = itertools.count(1), int(os.environ[AT]), os.open(os.environ[COUNT], os.O_WRONLY)
    runs = str(Path("runs").resolve())

    def watch(event: str, given: tuple[object, ...]) -> None:
        if (
            event in CHANGES or (event == "open" and isinstance(given[2], int) and given[2] & WRITING)
        ) and any(isinstance(path, str) and os.path.abspath(path).startswith(runs) for path in given[:2]):
            number = next(numbers)
            os.pwrite(count, b"%d" % number, 0)
            if number == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


@dataclass(frozen=True)
class Project:
    """A folder with a recipe of all stages and a tiny model."""

    folder: Path

    def run(self, kill_at: int = 0) -> tuple[int, int, str]:
        """The exit code of a run, how many changes of files it made, and what it wrote to standard error."""
        count = self.folder / "count"
        count.write_text("0")
        given = {AT: str(kill_at), COUNT: str(count)}
        done = processes.run("run", "recipe.yaml", cwd=self.folder, environment=given)
        return done.returncode, int(count.read_text()), done.stderr

    def results(self) -> dict[str, str]:
        """The hashes of all results, without the digests in the names of their folders."""
        run = next((self.folder / "runs").glob("[!.]*"))
        return {
            f"{pattern}: {path.name}": sha256(path)
            for pattern in (*RESULTS, *TEXTS)
            for path in run.glob(pattern)
        }

    def broken_checkpoints(self) -> list[str]:
        """The checkpoints that do not verify."""
        found = (self.folder / "runs").glob("*/train-*/checkpoints/checkpoint-*")
        return [f"{path.name}: {fault}" for path in found if (fault := damage(path))]


def project(folder: Path, steps: int) -> Project:
    """A project whose run goes through every stage, with a checkpoint after each step."""
    twin_file(
        "opt-350m-lora",
        folder,
        dataset={"path": "./rows.jsonl", "eval": {"rows": 2}},
        train={"max_steps": steps, "save_steps": 1, "save_total_limit": 2},
        evaluate={"prompts": ["Soup?"], "generation": {"max_new_tokens": 4}},
        merge={},
        push={"folder": "published"},
    )
    return Project(folder)


def faults(whole: Project, expected: dict[str, str], moment: int) -> Iterator[str]:
    """What is wrong after a run was killed at its n-th change of a file, and then run again."""
    with tempfile.TemporaryDirectory() as name:
        copy = Project(
            Path(shutil.copytree(whole.folder, Path(name) / "copy", ignore=shutil.ignore_patterns("runs")))
        )
        code, _, errors = copy.run(moment)
        if code != -signal.SIGKILL:
            yield f"moment {moment}: exit {code} instead of a kill: {errors}"
        yield from (f"moment {moment}: {checkpoint}" for checkpoint in copy.broken_checkpoints())
        code, _, errors = copy.run()
        if code:
            yield f"moment {moment}: exit {code} when run again: {errors}"
        elif copy.results() != expected:
            yield f"moment {moment}: other results: {copy.results()} instead of {expected}"


def spread(changes: int, moments: int) -> Sequence[int]:
    """So many moments of a run, as far from each other as they can be."""
    return sorted({1 + (changes - 1) * index // max(moments - 1, 1) for index in range(moments)})


def main(moments: int) -> int:
    """Try so many moments, two at a time; print what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        whole = project(Path(name) / "whole", steps=6)
        code, changes, errors = whole.run()
        assert code == 0, errors
        expected, chosen, wrong = whole.results(), spread(changes, moments), list[str]()
        print(f"a run changes files {changes} times; killing it at {len(chosen)} of them")
        with ThreadPoolExecutor(2) as pool:
            tried = pool.map(lambda moment: list(faults(whole, expected, moment)), chosen)
            for number, each in enumerate(tried, 1):
                wrong += each
                print(f"\r{number} of {len(chosen)}", end="" if number < len(chosen) else "\n", flush=True)
    print("\n".join(wrong) or "every run was finished with the same results")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
