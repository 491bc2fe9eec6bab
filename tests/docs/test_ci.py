"""Hooks, workflows and the action check what they say, with the light install where they can."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from loracook import __version__

ROOT = Path(__file__).parents[2]
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
    assert (ran.returncode, ran.stderr) == (0, "2 checked, 0 invalid\n")
    assert ran.stdout.startswith("::warning file=recipes/warned.yaml,line=5,col=24,")


def test_the_action_fails_on_warnings_when_it_is_strict(repository: Path) -> None:
    ran = action(repository, "recipes/good one.yaml\n\nrecipes/warned.yaml\n", "true")
    assert (ran.returncode, ran.stderr) == (2, "2 checked, 1 invalid\n")


@pytest.mark.parametrize("recipes", ["recipes/good one.yaml\n\nrecipes/warned.yaml\n", "\nrecipes"])
def test_the_action_takes_several_lines_and_passes_over_empty_ones(repository: Path, recipes: str) -> None:
    ran = action(repository, recipes)
    assert (ran.returncode, ran.stderr) == (0, "2 checked, 0 invalid\n")


def test_the_action_takes_its_inputs_for_names_and_never_for_commands(repository: Path) -> None:
    ran = action(repository, "--set=lora.r=9\n$(touch pwned)\n; touch pwned")
    assert ran.returncode == 2
    assert sorted(path.name for path in repository.iterdir()) == ["recipes"]


def test_the_hook_checks_the_folder_so_that_a_parent_need_not_stand_alone(repository: Path) -> None:
    (repository / "recipes" / "base.yaml").write_text("lora: {r: 8}\n")
    (repository / "recipes" / "child.yaml").write_text("extends: base.yaml\n" + GOOD.replace("r: 8", ""))
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["pass_filenames"] is False
    ran = subprocess.run(
        [*shlex.split(hook["entry"]), *hook["args"]], cwd=repository, env=ENVIRONMENT, capture_output=True
    )
    assert (hook["id"], hook["language"], ran.returncode) == ("loracook", "python", 0)


def test_the_hooks_are_the_checks_of_make_lint() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("$(VENV)", ".venv")
    lint = [line.strip() for line in makefile.split("\nlint:", 1)[1].split("\n\n", 1)[0].splitlines()[1:]]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]]
    assert {command.removesuffix(" .") for command in lint} <= set(entries)
    assert repository["repo"] == "local"


def test_the_workflows_test_the_python_versions_that_the_package_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = [line.rpartition(" ")[2] for line in package["classifiers"] if "Python :: 3." in line]
    assert versions == named
    assert package["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda file: file.name)
def test_the_workflows_and_forms_are_yaml_and_call_targets_that_exist(file: Path) -> None:
    text = file.read_text("utf-8")
    assert yaml.safe_load(text)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert [target for target in re.findall(r"run: make (\w+)", text) if f"\n{target}:" not in makefile] == []


def test_a_release_finds_its_version_and_its_entry_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert f"\n## {__version__}" in changelog
    assert citation["version"] == __version__


def test_make_alone_prints_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = makefile.split(".PHONY: ", 1)[1].splitlines()[0].split()
    ours = {
        name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")
    }
    printed = subprocess.run(["make"], cwd=ROOT, env=ours, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in printed.splitlines()] == phony
