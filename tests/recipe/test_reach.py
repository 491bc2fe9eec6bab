"""Which files a recipe reaches: those of its repository, and those that the user allows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import loracook
from loracook.cli import commands
from loracook.data import files as data_files
from loracook.data.read.sources import training
from loracook.errors import RecipeError
from loracook.model import files as model_files
from loracook.recipe.recipe import Recipe

ROW = '{"prompt": "Soup?", "completion": "Yes."}\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a project, its recipes, data and models side by side, and a folder elsewhere."""
    home = tmp_path / "home"
    for name in ("project/recipes/deep", "project/data/more", "project/models/tiny", "elsewhere"):
        (home / name).mkdir(parents=True)
    (home / "project/pyproject.toml").touch()
    for file in ("project/data/faq.jsonl", "project/data/more/b.jsonl", "elsewhere/c.jsonl"):
        (home / file).write_text(ROW)
    (home / "project/models/tiny/config.json").write_text("{}")
    (home / "project/data/chat.jinja").write_text("{{ messages[0].content }}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.delenv("LORACOOK_ALLOW_PATHS", raising=False)
    monkeypatch.chdir(home)
    return home


def written(file: Path, path: str, **sections: Any) -> Path:
    """A recipe file with rows from `path`."""
    base = {"version": 1, "name": "soup", "base_model": {"name_or_path": "org/model"}, "lora": {"r": 8}}
    file.write_text(json.dumps({**base, "dataset": {"path": path}, **sections}, indent=1))
    return file


def read_files(recipe: Recipe) -> list[Path]:
    return [*model_files(recipe), *data_files(recipe)]


def refusal(file: Path, **allowed: Any) -> str:
    with pytest.raises(RecipeError) as refused:
        read_files(loracook.load(file, **allowed))
    return refused.value.problems[0].message


def digest(file: Path, *allow: Path) -> str:
    return loracook.plan(loracook.load(file, allow_paths=allow)).stages[0].digest


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("../data/faq.jsonl", ["faq.jsonl"]),
        ("../data", ["faq.jsonl", "more/b.jsonl"]),
        ("../data/*.jsonl", ["faq.jsonl"]),
        ("../data/**/*.jsonl", ["faq.jsonl", "more/b.jsonl"]),
        ("./../recipes/../data/faq.jsonl", ["faq.jsonl"]),
    ],
)
def test_a_recipe_reads_everything_in_its_repository(home: Path, path: str, read: list[str]) -> None:
    file = written(
        home / "project/recipes/recipe.yaml", path, base_model={"name_or_path": "../models/tiny"},
        template={"chat_template": "../data/chat.jinja"},
    )  # fmt: skip
    project = home / "project"
    expected = ["models/tiny/config.json", *(f"data/{name}" for name in read), "data/chat.jinja"]
    assert read_files(loracook.load(file)) == [project / name for name in expected]


def test_data_files_are_taken_from_the_repository_too(home: Path) -> None:
    file = home / "project/recipes/recipe.yaml"
    for dataset in ({"path": "json", "data_files": "../data/faq.jsonl"}, {"path": "../data", "data_files": ["faq.jsonl"]}):  # fmt: skip
        read = read_files(loracook.load(written(file, "", dataset=dataset)))
        assert read == [home / "project/data/faq.jsonl"]


def test_a_recipe_extends_one_in_another_folder_of_its_repository(home: Path) -> None:
    written(home / "project/recipes/base.yaml", "../../data/faq.jsonl")
    child = home / "project/recipes/deep/child.yaml"
    child.write_text("extends: ../base.yaml\n")
    assert read_files(loracook.load(child)) == [home / "project/data/faq.jsonl"]


def test_outside_of_a_repository_the_root_is_the_recipe_s_own_folder(home: Path) -> None:
    (home / "project/pyproject.toml").unlink()
    (home / ".git").mkdir()  # a home folder that is kept in git
    said = refusal(written(Path("project/recipes/recipe.yaml"), "../data/faq.jsonl"))
    assert said == (
        "'../data/faq.jsonl' is outside the recipe's folder; move it there, "
        "or allow it: --allow-path project/data/"
    )


@pytest.mark.parametrize(
    ("path", "where", "folder"),
    [
        ("../../elsewhere/c.jsonl", "is outside the repository 'project'", "elsewhere/"),
        ("../../elsewhere", "is outside the repository 'project'", "elsewhere/"),
        ("../../elsewhere/*.jsonl", "is outside the repository 'project'", "elsewhere/"),
        ("{home}/elsewhere/c.jsonl", "is an absolute path", "{home}/elsewhere/"),
        ("{home}/elsewhere/*/../c.jsonl", "is an absolute path", "{home}/elsewhere/"),
        ("{home}/elsewhere/**/*.jsonl", "is an absolute path", "{home}/elsewhere/"),
        ("../data/link.jsonl", "links to a place outside the repository 'project'", "elsewhere/"),
    ],
)
def test_a_refused_place_says_why_and_how_to_allow_it(home: Path, path: str, where: str, folder: str) -> None:
    (home / "project/data/link.jsonl").symlink_to(home / "elsewhere/c.jsonl")
    file = written(Path("project/recipes/recipe.yaml"), path.format(home=home))
    said = refusal(file)
    folder = folder.format(home=home)
    assert where in said
    assert said.endswith(f"allow it: --allow-path {folder}")
    assert read_files(loracook.load(file, allow_paths=[folder])) == [home / "elsewhere/c.jsonl"]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/etc/passwd", None),
        ("/etc", None),
        ("/proc/self/*", None),
        ("/", None),
        ("{home}", None),
        ("{home}/rows.jsonl", "{home}/rows.jsonl"),  # its folder holds more than data
        ("{home}/.ssh/id_rsa", None),
        ("{home}/.cache/rows.jsonl", "{home}/.cache/"),
        ("{home}/elsewhere/README", "{home}/elsewhere/"),
        ("{home}/elsewhere/v1.2", "{home}/elsewhere/v1.2/"),
        ("{home}/elsewhere/[b]/*.jsonl", "'{home}/elsewhere/[b]/'"),
        ("{home}/elsewhere/nothing", "{home}/elsewhere/nothing/"),
    ],
)
def test_only_places_that_hold_data_are_advised(home: Path, path: str, advice: str | None) -> None:
    for name in ("elsewhere/v1.2", "elsewhere/[b]", ".ssh", ".cache"):
        (home / name).mkdir()
    for name in ("rows.jsonl", "elsewhere/README"):
        (home / name).touch()
    said = refusal(written(home / "project/recipes/recipe.yaml", path.format(home=home)))
    _, advised, folder = said.partition(", or allow it: --allow-path ")
    assert (folder if advised else None) == (advice and advice.format(home=home))


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("../data [v1]/*.jsonl", ["data [v1]/a.jsonl", "data [v1]/b.jsonl"]),
        ("../data [v1]/[a].jsonl", ["data [v1]/a.jsonl"]),
        ("../data [v1]/**/*.jsonl", ["data [v1]/a.jsonl", "data [v1]/b.jsonl", "data [v1]/x?/c.jsonl"]),
        ("../data [v1]/x?/*", ["data [v1]/x?/c.jsonl"]),
        ("../data [v1]", ["data [v1]/a.jsonl", "data [v1]/b.jsonl", "data [v1]/x?/c.jsonl"]),
        ("../dat[a]/*.jsonl", ["data/faq.jsonl"]),
    ],
)
def test_what_is_there_is_no_pattern(home: Path, path: str, read: list[str]) -> None:
    (home / "project/data [v1]/x?").mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl", "x?/c.jsonl"):
        (home / "project/data [v1]" / name).write_text(ROW)
    recipe = loracook.load(written(home / "project/recipes/recipe.yaml", path))
    assert read_files(recipe) == [home / "project" / name for name in read]


def test_a_commit_in_the_hubs_cache_is_allowed_with_its_blobs(home: Path) -> None:
    snapshots = [home / f".cache/{kind}--org--x/snapshots/abc" for kind in ("models", "datasets")]
    for snapshot, name, text in zip(snapshots, ("config.json", "rows.jsonl"), ("{}", ROW), strict=True):
        (snapshot.parent.parent / "blobs").mkdir(parents=True)
        (snapshot.parent.parent / "blobs/5eed").write_text(text)
        snapshot.mkdir(parents=True)
        (snapshot / name).symlink_to("../../blobs/5eed")
    model, rows = snapshots
    base = {"name_or_path": str(model)}
    for path in (rows, rows / "rows.jsonl", rows / "*.jsonl"):
        file = written(home / "project/recipes/recipe.yaml", str(path), base_model=base)
        found = read_files(loracook.load(file, allow_paths=snapshots))
        assert found == [model / "config.json", rows / "rows.jsonl"]
    with pytest.raises(RecipeError):
        loracook.load(file, allow_paths=[model])


def test_an_absolute_path_into_the_repository_is_refused_with_the_relative_one(home: Path) -> None:
    file = written(home / "project/recipes/recipe.yaml", f"{home}/project/data/faq.jsonl")
    assert refusal(file).endswith("is an absolute path; use '../data/faq.jsonl'")


@pytest.mark.parametrize("way", ["option", "variable", "configuration"])
def test_the_user_allows_places_in_three_ways(home: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(home / "project/recipes/recipe.yaml", f"{home}/elsewhere/c.jsonl")
    assert CliRunner().invoke(commands, ["show", str(file)]).exit_code != 0
    if way == "variable":
        monkeypatch.setenv("LORACOOK_ALLOW_PATHS", f"/nowhere{os.pathsep}~/elsewhere")
    if way == "configuration":
        (home / ".config/loracook").mkdir(parents=True)
        (home / ".config/loracook/config.yaml").write_text("allow_paths: [~/elsewhere]\n")
    option = ["--allow-path", "elsewhere"] if way == "option" else []
    for command in ("validate", "show", "diff"):
        arguments = [command, *[str(file)] * (2 if command == "diff" else 1), *option]
        assert CliRunner().invoke(commands, arguments, standalone_mode=False).exception is None
    assert option or read_files(loracook.load(file)) == [home / "elsewhere/c.jsonl"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- /data\n", "1: not a mapping"),
        ("allow_paths: /data\n", "1: not a list of paths"),
        ("allow_paths: [/data, 3, data]\n", "1: '3' is not an absolute path"),
        ("allow_path: [/data]\nallow_paths: []\n", "1: unknown key"),
        ("allow_paths: [/data\n", "1: unclosed list"),
    ],
)
def test_a_wrong_configuration_file_is_named(home: Path, text: str, line: str) -> None:
    config = home / ".config/loracook/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    with pytest.raises(RecipeError) as refused:
        loracook.load(written(home / "recipe.yaml", "org/rows"))
    problem = refused.value.problems[0]
    assert problem.position is not None
    assert (problem.position.file, f"{problem.position.line}: {problem.message}"[: len(line)]) == (
        str(config),
        line,
    )


def test_a_recipe_cannot_allow_itself_anything(home: Path) -> None:
    written(home / "project/recipes/recipe.yaml", "org/rows", allow_paths=["/"])
    assert "unknown key" in refusal(home / "project/recipes/recipe.yaml")


def test_an_allowed_parent_reaches_no_further_than_its_child(home: Path) -> None:
    (home / "elsewhere/.git").mkdir()
    (home / "elsewhere/deep").mkdir()
    written(home / "elsewhere/base.yaml", "org/rows")
    (home / "elsewhere/deep/middle.yaml").write_text("extends: ../base.yaml\n")
    child = home / "project/recipes/child.yaml"
    child.write_text(f"extends: {home}/elsewhere/deep/middle.yaml\n")
    assert "'../base.yaml' is outside the repository 'project'" in refusal(
        child, allow_paths=[home / "elsewhere/deep"]
    )
    assert loracook.load(child, allow_paths=[home / "elsewhere"])["dataset"]["path"] == "org/rows"


def test_a_parent_is_not_reached_through_a_link_and_back(home: Path) -> None:
    written(home / "elsewhere/base.yaml", "org/rows")
    recipes = home / "project/recipes"
    (recipes / "base.yaml").symlink_to(home / "elsewhere/base.yaml")
    (recipes / "link").symlink_to(recipes / "deep/deeper")
    (recipes / "deep/deeper").mkdir()
    written(recipes / "deep/base.yaml", "org/rows")
    (recipes / "child.yaml").write_text("extends: link/../base.yaml\n")
    assert "leads through a link" in refusal(recipes / "child.yaml")


@pytest.mark.parametrize("names", ["org/../../x.jsonl", "/etc/passwd", "a/../../b"])
def test_data_files_of_a_data_set_on_the_hub_stay_inside_it(home: Path, names: str) -> None:
    file = written(home / "r.yaml", "", dataset={"path": "org/rows", "data_files": names})
    assert "is not a file of the data set on the hub" in refusal(file, allow_paths=["/"])


def test_a_loop_of_links_is_refused(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    assert "cannot be resolved" in refusal(written(home / "recipe.yaml", "./a/x.jsonl"))


def test_the_digest_is_that_of_the_content_wherever_recipe_and_files_lie(home: Path) -> None:
    file = written(home / "project/recipes/recipe.yaml", "../data/faq.jsonl")
    before = digest(file)
    assert digest(written(home / "project/recipes/deep/r.yaml", "../../data/faq.jsonl")) == before
    (home / "project").rename(home / "clone")
    assert digest(home / "clone/recipes/recipe.yaml") == before
    (home / "elsewhere/faq.jsonl").write_text(ROW)
    absolute = written(home / "r.yaml", f"{home}/elsewhere/faq.jsonl")
    assert digest(absolute, home / "elsewhere") == before
    (home / "elsewhere/faq.jsonl").write_text(ROW * 2)
    assert digest(absolute, home / "elsewhere") != before


def test_files_elsewhere_in_the_repository_are_named_as_seen_from_the_recipe(home: Path) -> None:
    file = written(home / "project/recipes/recipe.yaml", "../data")
    for name in ("a", "b"):
        (home / f"project/data/{name}").mkdir()
        (home / f"project/data/{name}/rows.jsonl").write_text(ROW)
    source = training(loracook.load(file))[0]
    assert [source.name(path) for path in source.files] == [
        "../data/a/rows.jsonl", "../data/b/rows.jsonl", "../data/faq.jsonl", "../data/more/b.jsonl",
    ]  # fmt: skip
    assert source.name(home / "elsewhere/c.jsonl") == "c.jsonl"
