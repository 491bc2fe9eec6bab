"""What a lock holds a recipe to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import processes
from tests.tiny_recipes import twin_file


@pytest.mark.slow
def test_a_lock_is_the_same_each_time_and_names_each_thing_that_has_changed(tmp_path: Path) -> None:
    file = twin_file("opt-350m-lora", tmp_path)
    without = processes.run("validate", "--locked", file.name, cwd=tmp_path)
    assert (without.returncode, without.stderr) == (
        2,
        "'recipe.yaml.lock' is no file; run: loracook lock recipe.yaml\n",
    )
    assert processes.run("lock", file.name, cwd=tmp_path).stdout == "wrote recipe.yaml.lock\n"
    lock = tmp_path / "recipe.yaml.lock"
    text = lock.read_text()
    assert processes.run("validate", "--locked", file.name, cwd=tmp_path).returncode == 0
    processes.run("lock", file.name, cwd=tmp_path)
    assert lock.read_text() == text
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write('{"quote": "one more"}\n')
    for command in ("validate", "run"):
        refused = processes.run(command, "--locked", file.name, cwd=tmp_path)
        assert (refused.returncode, "rows.jsonl was " in refused.stderr) == (2, True)
    assert not (tmp_path / "runs").exists()
    processes.run("lock", file.name, cwd=tmp_path)
    other = processes.run("validate", "--locked", file.name, "--set", "train.seed=1", cwd=tmp_path)
    assert other.stderr.startswith("the recipe's sha256 was "), other.stderr
    lock.write_text(lock.read_text().replace("torch: ", "torch: x"))
    assert processes.run("validate", "--locked", file.name, cwd=tmp_path).returncode == 3
    for hostile in ("lock: 1\n", "a: &b 1\n", "", "lock: 2\nrecipe: {}\nfiles: {}\nversions: {}\nhub: {}\n"):
        lock.write_text(hostile)
        assert processes.run("validate", "--locked", file.name, cwd=tmp_path).returncode == 2
