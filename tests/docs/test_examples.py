"""What the README and the documentation show is so: recipes load, rows are read, tables are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import loracook
from docs import pages
from loracook import errors
from loracook.data.read.detect import detect
from loracook.data.read.formats import ReadOptions
from loracook.recipe.schema import part_at, schema
from tests.docs.texts import PAGES, ROOT, blocks, name, strings

README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = ROOT / "docs" / "examples"
BASE: dict[str, Any] = {
    "version": 1,
    "name": "fragment",
    "base_model": {"name_or_path": "org/model"},
    "dataset": {"path": "org/rows", "eval": {"rows": 5}},
    "lora": {"r": 8},
}


def fragments() -> list[str]:
    """The pieces of recipes in the pages; lines that start with one key are alternatives."""
    found = []
    for page in PAGES:
        for block in blocks(page.read_text("utf-8"), "yaml"):
            lines = block.splitlines()
            keys = {line.partition(":")[0] for line in lines}
            found += lines if len(keys) == 1 and len(lines) > 1 else [block]
    return [text for text in found if _is_recipe(text)]


def _is_recipe(text: str) -> bool:
    data = None if "--8<--" in text else yaml.safe_load(text)
    return isinstance(data, dict) and set(data) <= set(schema()["properties"])


@pytest.mark.parametrize("text", fragments())
def test_every_piece_of_a_recipe_is_valid_in_one(text: str, tmp_path: Path) -> None:
    rest = {key: value for key, value in BASE.items() if key not in yaml.safe_load(text)}
    (tmp_path / "recipe.yaml").write_text((yaml.safe_dump(rest) if rest else "") + text)
    loracook.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("recipe", ["chat.yaml", "qlora.yaml", "higher-rank.yaml"])
def test_every_whole_recipe_loads_without_a_warning(recipe: str) -> None:
    assert loracook.load(EXAMPLES / recipe).warnings == ()


def test_the_recipe_of_the_readme_is_that_of_the_quickstart() -> None:
    assert blocks(README, "yaml") == [(EXAMPLES / "chat.yaml").read_text("utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_on_a_page_parses_and_calls_public_functions(page: Path) -> None:
    for code in blocks(page.read_text("utf-8"), "python"):
        compile(code, str(page), "exec")
        assert set(re.findall(r"\bloracook\.(\w+)", code)) <= set(loracook.__all__)


def test_every_format_has_a_row_that_is_recognized() -> None:
    page = (ROOT / "docs" / "reference" / "formats.md").read_text("utf-8")
    formats = set((part_at(("dataset", "format")) or {})["enum"]) - {"auto"}
    assert formats == set(re.findall(r"^## (\w+)$", page, re.MULTILINE))
    for format in formats - {"columns"}:
        assert f'--8<-- "rows/{format}.jsonl"' in page
        for line in (EXAMPLES / "rows" / f"{format}.jsonl").read_text("utf-8").splitlines():
            assert detect(json.loads(line), ReadOptions("auto"))[0] == format


def test_the_table_of_defaults_is_what_a_recipe_gets() -> None:
    rows = dict(re.findall(r"^\| \[`([\w.]+)`\]\(\S+\) \| `(.*?)` \|", pages.defaults(), re.MULTILINE))
    sections = loracook.load(EXAMPLES / "chat.yaml").sections
    for key in ("train.max_length", "base_model.dtype", "train.save_total_limit"):
        section, _, last = key.partition(".")
        assert rows[key] == pages.spelled(sections[section][last])


def test_the_key_reference_has_every_key() -> None:
    from loracook.recipe.schema import all_keys

    page = pages.keys()
    assert [path for path, _ in all_keys() if len(path) > 1 and f'"{pages.dotted(path)}"' not in page] == []


def test_the_command_reference_has_every_command_and_option() -> None:
    sections = re.split(r"^## ", pages.commands(), flags=re.MULTILINE)[1:]
    assert {section.split()[0] for section in sections} == set(pages.options())
    for section in sections:
        assert [option for option in pages.options()[section.split()[0]] if option not in section] == []


def test_commands_that_pages_show_are_run() -> None:
    shown = pages.with_output("```console\n$ loracook validate wrong.yaml\n```")
    assert shown.startswith("```text\n$ loracook validate wrong.yaml\nwrong.yaml:")
    assert "lora.rank" in shown


def test_the_exit_codes_are_those_of_the_errors() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    codes = set(map(int, re.findall(r"^\| (\d+) \|", page, re.MULTILINE)))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert codes == {0, 1, 130} | {kind.exit_code for kind in kinds}


def test_the_messages_of_troubleshooting_are_messages() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    pieces = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    said = "\n".join(text for file in (ROOT / "loracook").rglob("*.py") for text in strings(file))
    assert len(pieces) >= 10
    assert [piece for piece in pieces if piece not in said] == []


def test_the_mistakes_of_the_readme_are_those_that_were_measured() -> None:
    measured = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (?:accepted|refused) \| ([\d.]+) \|", measured, re.MULTILINE)
    shown = re.findall(r"^\| ([^|]+) \| [^|]*? ([\d.]+) s \| (?:accepted|refused), ", README, re.MULTILINE)
    assert shown == rows
    assert len(rows) == 14
