"""The schema is found however loracook was installed: from a wheel, from an sdist, or as a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from loracook.views.editor_schema import editor_schema

ROOT = Path(__file__).parent.parent
PRINT = (
    "import loracook, sys; from loracook.cli import main; print(loracook.__file__, file=sys.stderr); main()"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def schema_of(site: Path, elsewhere: Path) -> dict[str, object]:
    """What `loracook schema` prints when loracook is imported from `site`."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", PRINT, "schema"]
    done = subprocess.run(command, env=environment, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert done.stderr.startswith(str(site))
    printed: dict[str, object] = json.loads(done.stdout)
    return printed


def test_the_schema_is_found_in_a_wheel(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    assert schema_of(tmp_path / "site", tmp_path) == editor_schema()


def test_the_schema_is_found_in_an_sdist(built: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "xzf", next(built.glob("*.tar.gz"))], cwd=tmp_path, check=True)
    assert schema_of(next(tmp_path.glob("loracook-*")), tmp_path) == editor_schema()


def test_the_schema_is_found_in_a_checkout(tmp_path: Path) -> None:
    assert schema_of(ROOT, tmp_path) == editor_schema()


def test_the_wheel_brings_types_templates_and_schema_and_requires_two_packages(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
    required = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert sorted(line.split()[1].split(">")[0] for line in required) == ["click", "pyyaml"]
    assert {
        "loracook/data/tokenize/templates/chatml.jinja", "loracook/recipe/recipe.schema.json", "loracook/py.typed",
        "loracook/views/templates/launch/slurm.sh",
    } <= set(names)  # fmt: skip


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an sdist has no list of tracked files")
def test_the_sdist_brings_what_its_tests_read(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    left_out = {name for name in set(tracked.stdout.splitlines()) - names if not name.startswith(".ci/")}
    assert left_out == set()
