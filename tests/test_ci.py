"""The pre-commit hook and the action check recipes with the light install alone."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
GOOD = "version: 1\nbase_model: {name_or_path: org/model}\ndataset: {path: org/rows}\nlora: {r: 8}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "good one.yaml").write_text(GOOD + "name: good\n")
    (tmp_path / "recipes" / "warned.yaml").write_text(GOOD + "train: {learning_rate: 0.5}\n")
    return tmp_path


def action(repository: Path, recipes: str, strict: str = "false") -> subprocess.CompletedProcess[str]:
    """Run the checking step of the action as a runner would."""
    (step,) = [
        step for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"] if "env" in step
    ]
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=repository, env=ENVIRONMENT | {"RECIPES": recipes, "STRICT": strict}, capture_output=True, text=True,
    )  # fmt: skip


def test_the_action_annotates_and_passes_warnings(repository: Path) -> None:
    ran = action(repository, "recipes")
    assert (ran.returncode, ran.stderr) == (0, "2 checked, 0 wrong\n")
    assert ran.stdout.startswith("::warning file=recipes/warned.yaml,line=5,col=24,")


def test_the_action_fails_on_warnings_when_it_is_strict(repository: Path) -> None:
    assert action(repository, "recipes/good one.yaml\n\nrecipes/warned.yaml\n", "true").returncode == 2


def test_the_action_takes_its_inputs_for_names_and_never_for_commands(repository: Path) -> None:
    ran = action(repository, "--set=lora.r=9\n$(touch pwned)\n; touch pwned")
    assert ran.returncode == 2
    assert sorted(path.name for path in repository.iterdir()) == ["recipes"]


def test_the_hook_checks_the_files_it_is_given(repository: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    files = ["recipes/good one.yaml", "recipes/warned.yaml"]
    ran = subprocess.run(
        [*shlex.split(hook["entry"]), *files], cwd=repository, env=ENVIRONMENT, capture_output=True
    )
    assert (hook["id"], hook["language"], ran.returncode) == ("loracook", "python", 0)
