"""What is wrong with a sweep is said at once, each at its place, before Ray or torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from loracook.cli import commands
from loracook.errors import RecipeError
from loracook.recipe.schema import schema_file
from loracook.sweep.file import SCHEMA, is_sweep, load_sweep
from loracook.sweep.points import draws, grid, key

INVALID = Path(__file__).parent / "invalid"
SWEEPS = sorted(path for path in INVALID.glob("*.yaml") if path.name != "recipe.yaml")
VALID = """\
recipe: recipe.yaml
method: random
trials: 6
metric: {name: exact_match, goal: maximize}
parameters:
  train.learning_rate: {min: 1e-4, max: 1e-2, distribution: log_uniform}
  lora.r: {values: [8, 16]}
"""


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_every_problem_of_a_sweep_is_named(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(INVALID)
    with pytest.raises(RecipeError) as error:
        load_sweep(Path(sweep.name))
    expected = sweep.with_suffix(".txt")
    if "LORACOOK_WRITE_GOLDEN" in os.environ:
        expected.write_text(f"{error.value}\n", "utf-8")
    assert f"{error.value}\n" == expected.read_text("utf-8")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text((INVALID / "recipe.yaml").read_text())
    (tmp_path / "rows.jsonl").write_text((INVALID / "rows.jsonl").read_text())
    (tmp_path / "rates.yaml").write_text(VALID)
    return tmp_path / "rates.yaml"


def test_validate_checks_a_sweep_with_its_trials(sweep: Path) -> None:
    assert CliRunner().invoke(commands, ["validate", str(sweep.parent)]).output == "2 checked, 0 invalid\n"
    sweep.write_text(VALID.replace("lora.r", "lora.rank"))
    assert "not a loracook key; use 'r: 8'" in CliRunner().invoke(commands, ["validate", str(sweep)]).output


def test_more_than_this_machine_has_is_refused(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sweep.write_text(VALID + "resources: {cpus: 1024, gpus: 3}\n")
    result = CliRunner().invoke(commands, ["sweep", str(sweep), "--runs", str(sweep.parent / "runs")])
    assert [problem.path for problem in result.exception.problems] == [  # type: ignore[union-attr]
        ("resources", "cpus"),
        ("resources", "gpus"),
    ]


def test_a_refused_sweep_and_its_help_import_neither_ray_nor_torch(sweep: Path) -> None:
    sweep.write_text(VALID.replace("exact_match", "accuracy"))
    code = (
        "import sys; from loracook.cli import commands\n"
        "for words in (['sweep', '--help'], ['sweep', sys.argv[1]]):\n"
        "    try: commands(words, standalone_mode=False)\n"
        "    except Exception as error: print(error)\n"
        "assert not {'ray', 'optuna', 'torch', 'jinja2'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, sweep], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "is not measured" in ran.stdout


def test_without_ray_it_is_said_what_to_install(sweep: Path) -> None:
    (sweep.parent / "without").mkdir()
    (sweep.parent / "without" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def __init__(self, finder): self.finder = finder\n"
        "    def find_spec(self, name, *rest):\n"
        "        return None if name == 'ray' else self.finder.find_spec(name, *rest)\n"
        "sys.meta_path[:] = map(Without, sys.meta_path)\n"
    )
    places = f"{sweep.parent / 'without'}:{Path(__file__).parents[2]}"
    environment = os.environ | {"PYTHONPATH": places}
    ran = subprocess.run(
        [sys.executable, "-m", "loracook", "sweep", sweep], env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (3, 'ray is not installed; run: pip install "loracook[sweep]"\n')


def test_a_file_of_somebody_else_is_not_replaced_by_the_best_recipe(sweep: Path) -> None:
    (sweep.parent / "rates-best.yaml").write_text("version: 1\n")
    result = CliRunner().invoke(commands, ["sweep", str(sweep), "--runs", str(sweep.parent / "runs")])
    assert "is in the way" in str(result.exception)


def test_random_points_are_the_same_each_time_and_the_first_ones_of_more(sweep: Path) -> None:
    parameters = load_sweep(sweep).parameters
    assert draws(parameters, 9)[:6] == list(load_sweep(sweep).points)
    assert len({key(point) for point in draws(parameters, 9)}) == 9
    assert all(1e-4 <= point["train.learning_rate"] <= 1e-2 for point in draws(parameters, 50))


def test_a_grid_is_every_combination() -> None:
    points = grid({"a": {"values": [1, 2]}, "b": {"values": ["x", None]}})
    assert points == [{"a": 1, "b": "x"}, {"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 2, "b": None}]


def test_a_recipe_is_no_sweep() -> None:
    assert not is_sweep(str(INVALID / "recipe.yaml"))
    assert all(is_sweep(str(path)) for path in SWEEPS if path.name not in ("list.yaml",))


def test_every_key_of_the_schema_is_described_and_has_an_example() -> None:
    def parts(part: dict) -> list[dict]:  # type: ignore[type-arg]
        inner = list(part.get("properties", {}).values())
        return inner + [each for one in inner for each in parts(one)]

    assert [
        part for part in parts(schema_file(SCHEMA)) if "description" not in part or "examples" not in part
    ] == []
