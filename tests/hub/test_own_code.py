"""A base model with code of its own: run where the user allowed exactly its commit, and nowhere else."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils.import_utils import KERNELS_MIN_VERSION as VERSION

from loracook import load
from loracook.errors import LoracookError, RecipeError
from loracook.model.own_code import check_own_code
from loracook.recipe.allowed import allowed
from loracook.recipe.recipe import Recipe
from tests.hub.server import Hub
from tests.hub.test_downloads import loracook, taken
from tests.plans import written
from tests.tiny_recipes import twin_file

SOURCE = Path(__file__).parents[2] / "loracook"
LOADERS = ("from_pretrained", "from_config")
"""The methods of transformers that may run code of a model."""
WITHOUT_CODE = ("PeftConfig", "PeftModel", "AutoHfQuantizer")
"""Classes whose methods of these names read no code, and take no such argument."""
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({ran!r}).touch()
class SoupConfig(LlamaConfig):
    model_type = "soup"
class SoupForCausalLM(LlamaForCausalLM):
    config_class = SoupConfig
"""
AUTO_MAP = {"AutoConfig": "soup.SoupConfig", "AutoModelForCausalLM": "soup.SoupForCausalLM"}


@pytest.fixture
def recipe(hub: Hub, tmp_path: Path) -> Path:
    """A recipe on a model of an architecture that only its own repository knows."""
    file = twin_file(
        "quickstart",
        tmp_path,
        base_model={"name_or_path": "team/soup"},
        merge={},
        dataset={"eval": None},
        evaluate=None,
    )
    folder = tmp_path / "model"
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "soup", "auto_map": AUTO_MAP}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "soup.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    hub.create("team/soup", files=taken(folder))
    return file


@pytest.mark.slow
def test_code_of_exactly_the_allowed_commit_is_run_shown_and_recorded(hub: Hub, recipe: Path) -> None:
    commit = hub.repositories["team/soup"].branches["main"]
    revision = ["--set", f"base_model.revision={commit}"]
    refused = loracook(recipe, "plan", *revision)
    assert (refused.returncode, refused.stderr.rpartition("; ")[2]) == (
        2, f"read it, then allow it: --allow-code team/soup@{commit}\n",
    )  # fmt: skip
    assert not (recipe.parent / "ran").exists()
    allow = ["--allow-code", f"team/soup@{commit}"]
    ran = loracook(recipe, "run", *revision, *allow)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"runs the model's own code: team/soup@{commit}" in ran.stdout
    assert (recipe.parent / "ran").exists()
    for stage in ("train", "merge"):
        record = json.loads(next(recipe.parent.glob(f"runs/*/{stage}-*/record.json")).read_text())
        assert record["own_code"] == f"team/soup@{commit}"


@pytest.mark.parametrize("revision", [{}, {"revision": "main"}, {"revision": "1" * 40}])
def test_code_of_another_commit_is_refused(tmp_path: Path, revision: dict[str, str]) -> None:
    file = written(tmp_path, base_model={"name_or_path": "team/soup", **revision}, lora={"r": 4})
    with pytest.raises(RecipeError, match=f"base_model.revision: .*; write revision: {'0' * 40}"):
        load(file, allow_code=[f"team/soup@{'0' * 40}"])
    assert load(file, allow_code=[f"team/salad@{'0' * 40}"]).own_code is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize("auto_map", ["evil/soup--soup.Soup", {"AutoModel": "evil/soup--soup.Soup"}, {"AutoTokenizer": [None, "evil/soup--soup.Soup"]}])  # fmt: skip
def test_code_of_another_repository_is_refused(tmp_path: Path, name: str, auto_map: object) -> None:
    commit = "1" * 40
    folder = tmp_path / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps({"text_config": {"auto_map": auto_map}}))
    base = {"name_or_path": "team/soup", "revision": commit}
    recipe = Recipe(
        Path("recipe.yaml"), {"base_model": base}, (), allowed=allowed(code=[f"team/soup@{commit}"])
    )
    with pytest.raises(RecipeError, match=f"{name} asks for the code of 'evil/soup'"):
        check_own_code(recipe, folder)
    with pytest.raises(RecipeError, match="the hub gave the commit"):
        check_own_code(recipe, folder.with_name("2" * 40))


@pytest.mark.parametrize(
    "name", ["team/soup", "team/soup@main", f"team/soup@{'0' * 39}", f"./soup@{'0' * 40}"]
)
def test_code_is_allowed_by_its_whole_commit_alone(name: str) -> None:
    with pytest.raises(LoracookError, match="40 digits"):
        allowed(code=[name])


KERNELS = """
import loracook, bitsandbytes
from transformers.integrations.hub_kernels import lazy_load_kernel
print(lazy_load_kernel("causal-conv1d"))
"""


def test_kernels_of_the_hub_are_not_run_where_the_package_for_them_is_installed(tmp_path: Path) -> None:
    package, about = tmp_path / "kernels", tmp_path / f"kernels-{VERSION}.dist-info"
    package.mkdir()
    (package / "__init__.py").write_text("print('code of the hub is run')")
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {VERSION}\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", KERNELS],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None\n"


def test_every_call_that_could_run_a_model_s_code_says_whether_it_may() -> None:
    deciding = SOURCE / "model" / "own_code.py"
    undecided = []
    for file in SOURCE.rglob("*.py"):
        text = file.read_text("utf-8")
        assert file == deciding or '"trust_remote_code"' not in text.replace("REFUSED", "")
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            function = call.func
            if not (isinstance(function, ast.Attribute) and function.attr in LOADERS):
                continue
            if ast.unparse(function.value) in WITHOUT_CODE:
                continue
            given = [ast.unparse(word.value) for word in call.keywords if word.arg is None]
            if not {"own_code(recipe)", "model.own_code(recipe)", "NO_CODE", "model.NO_CODE"} & set(given):
                undecided.append(f"{file.name}:{call.lineno}: {ast.unparse(call)}")
    assert undecided == []
