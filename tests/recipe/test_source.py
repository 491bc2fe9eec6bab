"""YAML is read exactly, with the place of every entry, and refused where it could mean something else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loracook.errors import Position, RecipeError
from loracook.recipe.source import VALUES, parse, read
from loracook.recipe.text import BYTES

VALID = Path(__file__).parents[1] / "recipes" / "valid"
DATA_OF_EVERY_VALID_RECIPE = """
import sys
if sys.argv[1] == "pure":
    sys.modules["yaml._yaml"] = None
import yaml
from pathlib import Path
from loracook.recipe.source import read
assert yaml.__with_libyaml__ == (sys.argv[1] != "pure")
for file in sorted(Path(sys.argv[2]).glob("*.yaml")):
    source = read(file)
    print(source.data, sorted(map(repr, source.positions.items())))
"""


def refusals(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse(text, "a.yaml")
    return list(map(str, caught.value.problems))


def refusal(file: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        read(file)
    (problem,) = caught.value.problems
    return str(problem).replace(str(file), file.name)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2e-4", 2e-4), ("1E5", 1e5), (".5", 0.5), ("3.", 3.0), ("017", 17), ("0o17", 15), ("0x1F", 31),
        ("+8", 8), ("-0", 0), ("no", "no"), ("on", "on"), ("y", "y"), ("1:30", "1:30"), ("1_000", "1_000"),
        ("true", True), ("False", False), ("TRUE", True), ("tRUE", "tRUE"), ("null", None), ("~", None),
        ("", None), ("nil", "nil"), ("2001-01-01", "2001-01-01"), ("'8'", "8"), ('"true"', "true"),
        ("-.inf", float("-inf")), ("1e999", float("inf")), ("=", "="), ("e5", "e5"), ("1e", "1e"), (".", "."),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    found = parse(f"a: {written}\n", "a.yaml").data["a"]
    assert (found, type(found)) == (value, type(value))


def test_an_incomplete_escape_is_not_taken_for_an_open_quote() -> None:
    (line,) = refusals('a: "C:\\users\\me"\n')
    assert "escape" in line


def test_not_a_number_is_read_as_such() -> None:
    assert str(parse("a: .nan", "a.yaml").data["a"]) == "nan"


def test_every_entry_knows_where_its_key_and_value_stand() -> None:
    source = parse("a:\n  b: [x, 'y z']\nc: {d: 1}\n", "r.yaml")
    places = {path: ((key.line, key.column), (value.line, value.column, value.end_column))
              for path, (key, value) in source.positions.items()}  # fmt: skip
    assert places == {
        (): ((1, 1), (1, 1, 2)),
        ("a",): ((1, 1), (2, 3, 4)),
        ("a", "b"): ((2, 3), (2, 6, 7)),
        ("a", "b", 0): ((2, 7), (2, 7, 8)),
        ("a", "b", 1): ((2, 10), (2, 10, 15)),
        ("c",): ((3, 1), (3, 4, 5)),
        ("c", "d"): ((3, 5), (3, 8, 9)),
    }


def test_columns_count_characters_and_not_bytes() -> None:
    assert parse("a: {b: 'ü', c: 1}", "r.yaml").positions["a", "c"].key == Position("r.yaml", 1, 13, 14)


def test_every_duplicate_key_is_reported_with_its_first_line() -> None:
    inner, outer = refusals("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert inner.startswith("a.yaml:2:11: b.c: ")
    assert "line 2;" in inner
    assert outer.startswith("a.yaml:3:1: a: ")
    assert "line 1;" in outer


def test_a_bomb_of_aliases_is_refused_without_being_built() -> None:
    text = "a: &a [x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert len(refusals(text)) == 9 + 8 * 9


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_hundred_thousand_open_brackets_are_refused(opening: str) -> None:
    assert "more than 32 levels deep" in refusals(opening * (100_000 // len(opening)))[0]


def test_reading_stops_at_a_hundred_problems() -> None:
    assert len(refusals("a: 1\n" * 5000)) == 100


def test_more_values_than_the_limit_are_refused() -> None:
    (problem,) = refusals("a: [" + "1," * (VALUES + 5) + "]\n")
    assert f"more than {VALUES} values" in problem


def test_without_libyaml_recipes_read_the_same() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", DATA_OF_EVERY_VALID_RECIPE, kind, str(VALID)],
            capture_output=True,
            check=True,
        ).stdout
        for kind in ("pure", "libyaml")
    ]
    assert outputs[0] == outputs[1] != b""


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert refusal(tmp_path / "r.yaml").startswith("r.yaml:1:1: no such file")


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path.name}:1:1: not a regular file")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").startswith("pipe:1:1: not a regular file")


def test_a_cycle_of_links_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    assert "symbolic links" in refusal(tmp_path / "a.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch(mode=0)
    assert "permission denied" in refusal(tmp_path / "a.yaml")


def test_a_large_file_is_refused_and_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than 256 KiB" in refusal(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: " + "x" * (BYTES - 4) + "\n")
    assert len(read(tmp_path / "b.yaml").data["a"]) == BYTES - 4
