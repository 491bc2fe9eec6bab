"""The README keeps its word: its recipe loads, its tables name what there is, its examples print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import loracook
from loracook import errors
from loracook.cli import COMMANDS, verbs
from loracook.stages import STAGES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def rows(header: str) -> list[list[str]]:
    """The cells of the table under a header line."""
    table = README.split(header, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_its_recipe_loads(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(blocks("yaml")[0])
    assert loracook.load(tmp_path / "recipe.yaml").warnings == ()


def test_its_verbs_are_those_of_the_command_line() -> None:
    assert sorted(
        re.match(r"`loracook (\w+)", row[0])[1] for row in rows("| verb | what it does |")
    ) == sorted(COMMANDS)


def test_its_exit_codes_are_those_of_the_errors() -> None:
    codes = {int(code) for row in rows("| code | meaning |") for code in row[0].split(", ")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert codes == {0, 1, 130} | {kind.exit_code for kind in kinds}


def test_its_names_of_stages_keys_and_files_are_there() -> None:
    assert all(f"`{stage}`" in README or stage == "train" for stage in STAGES)
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("command", re.findall(r"^\$ loracook (.*)$", README, re.MULTILINE))
def test_what_it_shows_is_what_is_printed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.yaml").write_text(blocks("yaml")[0].replace("  r: 16", "  rank: 16"))
    shown = README.split(f"$ loracook {command}\n", 1)[1].split("```", 1)[0]
    printed = CliRunner().invoke(verbs, command.split()).output
    assert printed == shown


def test_its_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(f"\n{target}:" in makefile for target in re.findall(r"^make (\w+)", README, re.MULTILINE))
