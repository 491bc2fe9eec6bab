"""`loracook validate`: files, folders and patterns, formats, exit codes; every command refuses alike."""

from __future__ import annotations

import json
import os
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loracook.cli import commands
from loracook.cli.endings import ending
from loracook.recipe.validate import problems_of, recipes
from loracook.views.snippets import as_snippets

INVALID = Path(__file__).parents[1] / "recipes" / "invalid"
GOOD = "version: 1\nbase_model: {name_or_path: org/model}\ndataset: {path: org/rows}\nlora: {r: 8}\n"
BAD = GOOD.replace("r: 8", "r: x")
LINE = "bad.yaml:4:11: lora.r: 'x' is not an integer; use a value such as '16'"
WARNED = GOOD + "train: {learning_rate: 0.5}\n"
READING = {
    "validate": ["{}"],
    "show": ["{}"],
    "diff": ["{}", "{}"],
    "compare": ["{}", "{}"],
    "plan": ["{}"],
    "preview": ["{}"],
    "run": ["{}"],
    "repeat": ["{}"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"good": GOOD, "bad": BAD, "warned": WARNED}.items():
        Path(f"{name}.yaml").write_text(text)
    return tmp_path


def validate(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["validate", *arguments], standalone_mode=False)


def test_a_good_recipe_ends_with_0_and_says_so(folder: Path) -> None:
    ran = validate("good.yaml")
    assert (ran.return_value, ran.stdout, ran.stderr) == (0, "1 checked, 0 invalid\n", "")


def test_a_bad_recipe_ends_with_2_and_its_lines(folder: Path) -> None:
    ran = validate("good.yaml", "bad.yaml")
    assert (ran.return_value, ran.stdout, ran.stderr) == (2, "", f"{LINE}\n2 checked, 1 invalid\n")


def test_a_warning_ends_with_0_and_strict_makes_it_an_error(folder: Path) -> None:
    ran, strictly = validate("warned.yaml"), validate("warned.yaml", "--strict")
    place, _, message = ran.stderr.partition("warning: ")
    assert (ran.return_value, place) == (0, "warned.yaml:5:24: train.learning_rate: ")
    assert (strictly.return_value, strictly.stderr.splitlines()[0]) == (2, place + message.strip())


def test_quiet_says_nothing_but_errors(folder: Path) -> None:
    ran = validate("good.yaml", "bad.yaml", "warned.yaml", "--quiet")
    assert (ran.return_value, ran.stdout, ran.stderr) == (2, "", f"{LINE}\n")


def test_json_goes_to_standard_output_alone(folder: Path) -> None:
    ran = validate("good.yaml", "bad.yaml", "--format", "json")
    assert (ran.return_value, [problem["path"] for problem in json.loads(ran.stdout)], ran.stderr) == (
        2,
        ["lora.r"],
        "",
    )
    assert json.loads(validate("good.yaml", "--format", "json").stdout) == []


def test_set_is_applied_to_every_recipe(folder: Path) -> None:
    assert validate("bad.yaml", "good.yaml", "--set", "lora.r=8").return_value == 0


def test_folders_and_patterns_stand_for_the_recipes_in_them(folder: Path) -> None:
    Path("inner/deep").mkdir(parents=True)
    Path("inner/.hidden").mkdir()
    for name in ("inner/a.yml", "inner/deep/b.yaml", "inner/.hidden/c.yaml", "inner/.d.yaml", "inner/e.txt"):
        Path(name).write_text(GOOD)
    assert recipes(["inner"]) == ["inner/a.yml", "inner/deep/b.yaml"]
    assert recipes(["inner/**/*.yaml"]) == ["inner/deep/b.yaml"]
    Path("inner/deep").rename("inner/deep [v1]")
    assert recipes(["inner/deep [v1]/*.yaml"]) == ["inner/deep [v1]/b.yaml"]
    Path("inner/deep [v1]").rename("inner/deep")
    assert recipes(["good.yaml", "inner", "good.yaml"]) == ["good.yaml", "inner/a.yml", "inner/deep/b.yaml"]


def test_a_parent_is_checked_with_its_child_and_by_itself_when_it_is_alone(folder: Path) -> None:
    Path("team/base").mkdir(parents=True)
    Path("team/base/base.yaml").write_text("lora: {r: 8}\n")
    Path("team/child.yaml").write_text("extends: base/base.yaml\n" + GOOD.replace("lora: {r: 8}\n", ""))
    assert recipes(["team"]) == ["team/child.yaml"]
    assert recipes(["team/base/base.yaml", "team/child.yaml"]) == ["team/child.yaml"]
    assert recipes(["team/base/base.yaml"]) == ["team/base/base.yaml"]


@pytest.mark.parametrize("circle", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_recipes_that_extend_themselves_in_the_end_are_refused(folder: Path, circle: dict[str, str]) -> None:
    Path("team").mkdir()
    for child, parent in circle.items():
        Path(f"team/{child}.yaml").write_text(f"extends: {parent}.yaml\n")
    assert validate("team").return_value == 2


def test_a_parent_of_a_recipe_that_cannot_be_read_is_still_a_parent(folder: Path) -> None:
    Path("team/base").mkdir(parents=True)
    Path("team/base/base.yaml").write_text("lora: {r: 8}\n")
    Path("team/middle.yaml").write_text("extends: 'base/base.yaml'  # shared\nlora: [\n")
    Path("team/child.yaml").write_text("extends: middle.yaml\n" + GOOD)
    assert recipes(["team"]) == ["team/child.yaml"]


def test_a_name_without_a_recipe_is_a_problem_among_the_others(folder: Path) -> None:
    ran = validate("no*.yaml", "bad.yaml", "good.yaml", "--format", "json")
    assert (ran.return_value, [(problem["file"], problem["line"]) for problem in json.loads(ran.stdout)]) == (
        2,
        [("no*.yaml", 1), ("bad.yaml", 4)],
    )


def test_a_text_that_is_not_unicode_is_refused(folder: Path) -> None:
    ran = validate("good.yaml", "--set", "dataset.path=\udcff")
    assert (ran.return_value, ran.stderr.splitlines()[0][:20]) == (2, "--set:1:1: invisible")


@pytest.mark.filterwarnings("error")
def test_a_pattern_that_python_warns_about_does_not_disturb_the_reader(folder: Path) -> None:
    Path("odd.yaml").write_text(GOOD + "evaluate: {regex: '[[a-z]+]?'}\n")
    assert not any(problem.rule == "yaml" for problem in problems_of("odd.yaml"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("empty", "empty:1:1: no recipes in this folder"),
        ("no*.yaml", "no*.yaml:1:1: no recipe matches this pattern"),
        ("gone.yaml", "gone.yaml:1:1: no such file"),
    ],
)
def test_a_name_without_a_recipe_is_an_error(
    folder: Path, name: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    assert ending(lambda: commands(["validate", name], standalone_mode=False)) == 2
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("name", READING)
def test_every_command_refuses_the_same_recipes_in_the_same_words(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in sorted(INVALID.glob("by_hand/*/*.yaml"))[::9]:
        arguments = [name, *(part.format(file.name) for part in READING[name])]
        with chdir(file.parent):
            code = ending(lambda given=arguments: commands(given, standalone_mode=False))
        expected = file.with_suffix(".txt").read_text("utf-8")
        assert (code, capsys.readouterr().err[: len(expected)]) == (2, expected)


def test_an_unknown_option_ends_with_2(folder: Path) -> None:
    assert ending(lambda: commands(["validate", "--frobnicate", "good.yaml"], standalone_mode=False)) == 2


@pytest.mark.parametrize("kind", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize(
    "secret",
    ["password: hunter2\n", "hunter2\n", "- hunter2\n", "hunter2: [\n", GOOD.replace("8", "hunter2")],
)
@pytest.mark.parametrize("link", ["absolute", "relative", "chain", "extends"])
def test_a_link_in_a_checked_folder_shows_nothing_of_what_it_leads_to(
    folder: Path, kind: str, secret: str, link: str
) -> None:
    (folder / "secret.txt").write_text(secret)
    (folder / "pull/deep").mkdir(parents=True)
    target = {"relative": "../../secret.txt", "chain": "../y.yaml"}.get(link, str(folder / "secret.txt"))
    (folder / "pull/y.yaml").symlink_to(folder / "secret.txt")
    (folder / "pull/deep/x.yaml").symlink_to(target)
    if link == "extends":
        (folder / "pull/z.yaml").write_text("extends: ./deep/x.yaml\n")
    for name in ("pull", "pull/**/*.yaml", "pull/deep/*.yaml"):
        ran = validate(name, "--format", kind)
        assert ran.return_value == 2
        assert "links to a place outside" in ran.output
        assert "x.yaml" in ran.output
        assert "hunter2" not in ran.output


def test_a_link_is_read_where_it_is_named_allowed_or_leads_to_the_same_repository(folder: Path) -> None:
    (folder / "pull/.git").mkdir(parents=True)
    (folder / "pull/sub").mkdir()
    (folder / "pull/a.yaml").write_text(GOOD)
    (folder / "pull/sub/inside.yaml").symlink_to("../a.yaml")
    assert validate("pull/sub").return_value == 0
    (folder / "pull/sub/outside.yaml").symlink_to(folder / "bad.yaml")
    assert "links to a place outside the repository 'pull'" in validate("pull/sub").stderr
    assert "lora.r: 'x' is not an integer" in validate("pull/sub", "--allow-path", ".").stderr
    assert "lora.r: 'x' is not an integer" in validate("pull/sub/outside.yaml").stderr


@pytest.mark.parametrize("secret", ["hunter2\n", "- hunter2\n", "root:x:0:hunter2\n"])
def test_a_file_that_is_no_mapping_is_not_quoted(folder: Path, secret: str) -> None:
    (folder / "parent.yaml").write_text(secret)
    (folder / "child.yaml").write_text("extends: ./parent.yaml\n")
    for name in ("parent.yaml", "child.yaml"):
        ran = validate(name)
        assert (ran.return_value, "hunter2" in ran.output) == (2, False)


@pytest.mark.parametrize("command", READING)
def test_a_pipe_is_refused_and_not_waited_for(folder: Path, command: str) -> None:
    os.mkfifo("pipe.yaml")
    Path("child.yaml").write_text("extends: ./pipe.yaml\n")
    for name in ("pipe.yaml", "child.yaml"):
        arguments = [part.format(name) for part in READING[command]]
        ran = CliRunner().invoke(commands, [command, *arguments], standalone_mode=False)
        said = f"{ran.output}{ran.exception}"
        assert "not a regular file" in said
    problems = problems_of("pipe.yaml")
    assert as_snippets(problems).splitlines() == [str(problems[0])]


@pytest.mark.parametrize("name", ["folder", "folder/*.yaml"])
def test_a_pipe_found_in_a_folder_is_named(folder: Path, name: str) -> None:
    Path("folder").mkdir()
    os.mkfifo("folder/pipe.yaml")
    ran = validate(name)
    assert (ran.return_value, ran.stderr) == (
        2,
        "folder/pipe.yaml:1:1: is not a regular file; name a file or folder\n1 checked, 1 invalid\n",
    )
