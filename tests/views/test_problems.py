"""Problems are written for people, scripts, GitHub and code scanning, and no text breaks out of its place."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from loracook.errors import Position, Problem, clean
from loracook.views.problems import as_github, as_json, as_sarif, as_text
from loracook.views.snippets import COLOURED, as_snippets

SARIF = json.loads((Path(__file__).parents[1] / "files" / "sarif-2.1.0.schema.json").read_text("utf-8"))
RANK = Problem(
    ("lora", "r"), "'x' is not a whole number; write '8'", "type", position=Position("a.yaml", 4, 6, 7)
)
RATE = Problem(
    ("train", "learning_rate"),
    "far too large",
    "unusual-learning-rate",
    "warning",
    Position("a.yaml", 9, 18, 21),
)
HOSTILE = Problem(
    ("a::b", "c,d"),
    "100%\n::error::x\r\x1b[31m\u202e hf_abcdefghijklmnopqrstu",
    "type",
    position=Position("b,c:d%\n.yaml", 1, 2, 3),
)


def test_text_is_a_line_for_each() -> None:
    assert as_text([RANK, RATE]) == (
        "a.yaml:4:6: lora.r: 'x' is not a whole number; write '8'\n"
        "a.yaml:9:18: train.learning_rate: warning: far too large"
    )


def test_json_is_an_object_for_each() -> None:
    assert json.loads(as_json([RANK, RATE])) == [
        {
            "file": "a.yaml", "line": 4, "column": 6, "end_column": 7, "path": "lora.r", "severity": "error",
            "rule": "type", "message": "'x' is not a whole number; write '8'",
        },
        {
            "file": "a.yaml", "line": 9, "column": 18, "end_column": 21, "path": "train.learning_rate",
            "severity": "warning", "rule": "unusual-learning-rate", "message": "far too large",
        },
    ]  # fmt: skip


def test_github_annotates_the_place() -> None:
    assert as_github([RANK, RATE]) == (
        "::error file=a.yaml,line=4,col=6,endColumn=7,title=loracook%3A type"
        "::lora.r: 'x' is not a whole number; write '8'\n"
        "::warning file=a.yaml,line=9,col=18,endColumn=21,title=loracook%3A unusual-learning-rate"
        "::train.learning_rate: far too large"
    )


def test_no_text_ends_a_github_command_early() -> None:
    (line,) = as_github([HOSTILE]).splitlines()
    assert line == (
        "::error file=b%2Cc%3Ad%25\\n.yaml,line=1,col=2,endColumn=3,title=loracook%3A type"
        '::"a::b"."c,d": 100%25\\n::error::x\\r\\x1b[31m\\u202e hf_…'
    )


def test_sarif_is_valid_and_says_the_same() -> None:
    log = json.loads(as_sarif([RANK, RATE, HOSTILE]))
    jsonschema.Draft4Validator(SARIF).validate(log)
    (run,) = log["runs"]
    assert run["tool"]["driver"]["rules"] == [{"id": "type"}, {"id": "unusual-learning-rate"}]
    assert run["results"][0] == {
        "ruleId": "type",
        "level": "error",
        "message": {"text": "lora.r: 'x' is not a whole number; write '8'"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": "a.yaml"},
                    "region": {"startLine": 4, "startColumn": 6, "endColumn": 7},
                }
            }
        ],
    }


def test_no_problems_are_an_empty_list_or_log() -> None:
    assert (as_text([]), as_json([]), as_github([])) == ("", "[]", "")
    jsonschema.Draft4Validator(SARIF).validate(json.loads(as_sarif([])))


def test_a_snippet_shows_the_line_and_points_at_the_place(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("lora:\n\tx\n  r: eight # no\n")
    problem = Problem(("lora", "r"), "not a number", position=Position(str(file), 3, 6, 11))
    assert as_snippets([problem]).splitlines()[1:] == ["     3 |   r: eight # no", "       |      ^^^^^"]


@pytest.mark.parametrize("before", range(0, 120, 7))
def test_a_snippet_shows_no_part_of_a_secret_wherever_it_is_cut(before: int, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("x" * before + " hf_abcdefghijklmnopqrstuvwxyz, " + "y" * 200 + "\n")
    for column in range(1, before + 230, 11):
        problem = Problem((), "no", position=Position(str(file), 1, column, column + 3))
        assert not {"abcd", "wxyz", "lmno"} & {as_snippets([problem])[i : i + 4] for i in range(600)}


@pytest.mark.parametrize(
    "text",
    [
        "hf_transfer",
        "task-force-of-many-cooks",
        "sk-learn-classifiers",
        "pypi-packages-by-name",
        "AKIArctic",
        "org/hf_model",
    ],
)
def test_plain_words_are_no_secrets(text: str) -> None:
    assert clean(text) == text


def test_colour_is_round_the_place_and_the_caret_only(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("r: x\n")
    place = f"{file}:1:4"
    problem = Problem((), "no", position=Position(str(file), 1, 4, 5))
    assert (
        as_snippets([problem], COLOURED)
        == f"\x1b[1m{place}\x1b[0m: no\n     1 | r: x\n       |    \x1b[31m^\x1b[0m"
    )


def test_a_snippet_of_a_long_line_keeps_the_place_in_sight(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: [" + "x, " * 200 + "here]\n")
    column = 4 + 600 + 1
    problem = Problem((), "no", position=Position(str(file), 1, column, column + 4))
    shown, caret = as_snippets([problem]).splitlines()[1:]
    assert shown[caret.index("^") : caret.rindex("^") + 1] == "here"
    assert len(shown) <= 110


def test_a_problem_of_the_command_line_has_no_snippet() -> None:
    problem = Problem(("lora", "r"), "no", position=Position("--set", 1, 8, 9))
    assert as_snippets([problem]) == "--set:1:8: lora.r: no"


def test_cleaning_hides_secrets_and_shows_the_invisible() -> None:
    assert clean("a\x00b\u200b\U000e0041 sk-abcdefghijklmnop\n") == "a\\x00b\\u200b\\U000e0041 sk-…\\n"
