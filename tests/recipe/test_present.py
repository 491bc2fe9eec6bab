"""Local files that a recipe names and that are missing, and places that are not what the recipe takes them for."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import loracook
from loracook.cli import commands
from loracook.data.read.sources import training
from loracook.errors import RecipeError
from loracook.model import fetch
from loracook.model import files as model_files

BASE = {"version": 1, "base_model": {"name_or_path": "org/model"}, "dataset": {"path": "org/rows"}, "lora": {"r": 8}}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with recipes, data and models side by side, the working folder at its top."""
    for name in ("recipes", "data", "models/tiny", "recipes/tiny", "models/tuned", ".git"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/faq.csv").write_text("question,answer\nSoup?,Yes\n")
    (tmp_path / "models/tuned/adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(**sections: Any) -> tuple[int, list[str]]:
    """The exit code of validate for a recipe in recipes/, and its problems without their places."""
    Path("recipes/r.yaml").write_text(json.dumps({**BASE, **sections}))
    ran = CliRunner().invoke(commands, ["validate", "recipes/r.yaml"], standalone_mode=False)
    lines = (line.partition(" ") for line in ran.stderr.splitlines())
    return ran.return_value, [message for place, _, message in lines if place.startswith("recipes/r.yaml:")]


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"dataset": {"path": "../data/fax.csv"}}, "dataset.path: '../data/fax.csv' does not exist; did you mean '../data/faq.csv'?"),
        ({"dataset": {"path": "./data/faq.csv"}}, "dataset.path: './data/faq.csv' does not exist; did you mean '../data/faq.csv'?"),
        ({"dataset": {"path": "../nowhere/*.csv"}}, "dataset.path: '../nowhere/*.csv' does not exist; check the path"),
        ({"dataset": {"path": "../data", "data_files": ["faq.csv", "b.csv"]}}, "dataset.data_files.1: '../data/b.csv' does not exist; check the path"),
        ({"dataset": {"path": "csv", "data_files": "../data/fap.csv"}}, "dataset.data_files: '../data/fap.csv' does not exist; did you mean '../data/faq.csv'?"),
        ({"dataset": {"path": "../data/faq.csv", "eval": {"path": "./eval.csv"}}}, "dataset.eval.path: './eval.csv' does not exist; check the path"),
        ({"template": {"chat_template": "./chat.jinja"}}, "template.chat_template: './chat.jinja' does not exist; check the path"),
        ({"base_model": {"name_or_path": "../models/tinny"}}, "base_model.name_or_path: '../models/tinny' does not exist; did you mean '../models/tiny'?"),
        ({"base_model": {"name_or_path": "../models/tuned"}}, "base_model.name_or_path: this is an adapter; name its base model: 'org/base'"),
    ],
)  # fmt: skip
def test_validate_names_what_is_missing(project: Path, sections: dict[str, Any], line: str) -> None:
    code, lines = said(**sections)
    assert (code, [text for text in lines if "warning: these rows" not in text]) == (2, [line])


def test_files_of_packages_are_looked_up(project: Path) -> None:
    def base(path: str) -> dict[str, Any]:
        return {"base_model": {"name_or_path": f"package://{path}"}}

    assert said(**base("click/core.py")) == (0, [])
    assert said(**base("click/nothing.gguf")) == (
        2, ["base_model.name_or_path: the package 'click' has no file 'nothing.gguf'"],
    )  # fmt: skip
    line = (
        "base_model.name_or_path: warning: the package 'nowhere' is not installed; run: pip install nowhere"
    )
    assert said(**base("nowhere/model.gguf")) == (0, [line])


def a_device(name: str) -> None:
    Path(name).symlink_to("/dev/zero")


def a_socket(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(name)


@pytest.mark.parametrize("make", [os.mkfifo, a_socket, a_device])
@pytest.mark.parametrize(
    ("key", "dataset"),
    [
        ("path", {"path": "../data/odd.csv"}),
        ("data_files", {"path": "csv", "data_files": "../data/odd.csv"}),
        ("data_files.0", {"path": "../data", "data_files": ["odd.csv"]}),
        ("eval.path", {"path": "../data/faq.csv", "eval": {"path": "../data/odd.csv"}}),
    ],
)
def test_a_pipe_socket_or_device_is_no_data_file(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[str], None],
    key: str,
    dataset: dict[str, Any],
) -> None:
    monkeypatch.setenv("LORACOOK_ALLOW_PATHS", "/dev")
    make("data/odd.csv")
    code, lines = said(dataset=dataset)
    assert code == 2
    assert f"dataset.{key}: '../data/odd.csv' is not a regular file; name a file or folder" in lines


@pytest.mark.parametrize("make", [os.mkfifo, a_socket, a_device])
def test_a_pipe_socket_or_device_that_a_pattern_matches_is_refused(
    project: Path, make: Callable[[str], None]
) -> None:
    make("data/odd.csv")
    said(dataset={"path": "../data/odd.*"})
    (source,) = training(loracook.load("recipes/r.yaml", allow_paths=[Path("/dev")]))
    with pytest.raises(RecipeError, match="is not a regular file; name a file or folder"):
        list(source.records())


def test_a_pipe_socket_or_device_in_a_folder_of_data_is_not_read(project: Path) -> None:
    for make, name in ((os.mkfifo, "a"), (a_socket, "b"), (a_device, "c")):
        make(f"data/{name}.csv")
    said(dataset={"path": "../data"})
    (source,) = training(loracook.load("recipes/r.yaml"))
    assert [path.name for path in source.files] == ["faq.csv"]


def test_every_missing_file_is_named_at_once(project: Path) -> None:
    code, lines = said(dataset={"path": "./a.csv"}, base_model={"name_or_path": "./b"})
    assert (code, [line.split(":")[0] for line in lines]) == (2, ["base_model.name_or_path", "dataset.path"])


def test_what_is_there_gets_no_line(project: Path) -> None:
    assert said(dataset={"path": "../data/*.csv"}, base_model={"name_or_path": "../models/tiny"}) == (0, [])


def test_a_folder_beside_the_recipe_is_told_apart_from_a_hub_id(project: Path) -> None:
    warning = "base_model.name_or_path: warning: 'tiny' is read from the hub; did you mean './tiny'?"
    assert said(base_model={"name_or_path": "tiny"}) == (0, [warning])
    (project / "recipes/org/rows").mkdir(parents=True)
    assert said()[1] == ["dataset.path: warning: 'org/rows' is read from the hub; did you mean './org/rows'?"]


def test_an_adapter_is_refused_as_base_model_by_every_command(project: Path) -> None:
    said(base_model={"name_or_path": "../models/tuned"})
    with pytest.raises(RecipeError, match="this is an adapter; name its base model: 'org/base'"):
        model_files(loracook.load("recipes/r.yaml"))
    (project / "models/tuned/adapter_config.json").write_text("[]")
    with pytest.raises(RecipeError, match=r"this is an adapter; name its base model$"):
        model_files(loracook.load("recipes/r.yaml"))


def test_a_file_of_a_local_model_that_leads_out_is_refused_by_name(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:  # fmt: skip
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "weights").touch()
    (project / "models/tiny/config.json").touch()
    (project / "models/tiny/model.safetensors").symlink_to(elsewhere / "weights")
    said(base_model={"name_or_path": "../models/tiny"})
    with pytest.raises(RecipeError, match=r"its model.safetensors links to a place outside"):
        model_files(loracook.load("recipes/r.yaml"))
    assert len(model_files(loracook.load("recipes/r.yaml", allow_paths=[elsewhere]))) == 2
    (project / "models/tiny/additional_chat_templates").symlink_to(elsewhere.parent)
    with pytest.raises(RecipeError, match=r"its additional_chat_templates links to a place outside"):
        model_files(loracook.load("recipes/r.yaml", allow_paths=[elsewhere]))


def test_an_adapter_beside_a_model_is_refused_since_it_would_be_applied(project: Path) -> None:
    (project / "models/tuned/config.json").write_text("{}")
    said(base_model={"name_or_path": "../models/tuned"})
    with pytest.raises(RecipeError, match="this folder holds an adapter beside a model; name a folder with"):
        model_files(loracook.load("recipes/r.yaml"))


@pytest.mark.parametrize("name", ["../data/w.safetensors", "/etc/w.safetensors", "sub/w.safetensors"])
def test_an_index_of_weights_names_files_of_its_own_folder_alone(project: Path, name: str) -> None:
    tiny = project / "models/tiny"
    (tiny / "config.json").write_text("{}")
    (tiny / "w.safetensors").touch()
    said(base_model={"name_or_path": "../models/tiny"})
    index = tiny / "model.safetensors.index.json"
    for named in ("w.safetensors", name):
        index.write_text(json.dumps({"weight_map": {"a": "w.safetensors", "b": named}}))
        if named == name:
            with pytest.raises(RecipeError, match=f"names '{name}', which is not in its folder"):
                fetch(loracook.load("recipes/r.yaml"), project)
        else:
            assert fetch(loracook.load("recipes/r.yaml"), project) == tiny
