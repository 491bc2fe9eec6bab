"""README, documentation and messages keep their word: commands, options, links, tests and targets exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import pages
from tests.docs.texts import PAGES, REPOSITORY, ROOT, SITE, command_lines, links, name, strings

OPTIONS = pages.options()
ANY_OPTION = {option for options in OPTIONS.values() for option in options} | {"--version", "--help"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FOREIGN = {
    "--all-files", "--config", "--enable-lora", "--jinja", "--lora-modules", "--lora-paths", "--max-lora-rank",
    "--model-name", "--model-path", "--no-deps", "--outfile", "--outtype", "--trust-remote-code", "--vocab-only",
    "--gpus-per-node", "--infra", "--master", "--name", "--nnodes", "--node", "--local-addr", "--log-dir", "--module", "--nproc", "--nproc-per-node", "--secret", "--shutdown-timeout", "--signals-to-handle",
    "--standalone",
    "--signal", "--size", "--type",
}  # fmt: skip
"""Options of pre-commit, trl, pip, vllm, sglang, llama.cpp, sbatch, torchrun and sky."""
MODULES = sorted((ROOT / "loracook").rglob("*.py"))
TEMPLATES = [file for file in (ROOT / "loracook").rglob("*") if file.suffix in (".jinja", ".html")]
OTHERS = [
    ROOT / "schemas" / "recipe.schema.json", ROOT / "action.yml", ROOT / ".pre-commit-hooks.yaml",
    *(ROOT / "recipes").glob("*.yaml"), *(ROOT / "docs" / "examples").glob("*.yaml"), *TEMPLATES,
]  # fmt: skip
TESTS = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("*.py"))


def text_of(file: Path) -> str:
    """What people may see of a file: the strings of a module, all of any other."""
    return "\n".join(strings(file)) if file.suffix == ".py" else file.read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_of_a_page_could_be_typed(page: Path) -> None:
    wrong = []
    for line in command_lines(page.read_text("utf-8")):
        _, command, *rest = line.split()
        given = {word.split("=")[0] for word in rest if word.startswith("--")}
        if command not in OPTIONS or not given <= OPTIONS[command]:
            wrong.append(line)
    assert wrong == []


@pytest.mark.parametrize("file", [*PAGES, *OTHERS, *MODULES], ids=name)
def test_every_option_that_a_text_names_is_one(file: Path) -> None:
    text = re.sub(r"architecture\.py +--draw", "", text_of(file))
    assert set(OPTION.findall(text)) - ANY_OPTION - FOREIGN == set()


@pytest.mark.parametrize("file", [*OTHERS, *MODULES], ids=name)
def test_every_command_that_a_message_tells_people_to_run_is_one(file: Path) -> None:
    told = re.findall(r"(?:\b(?:run|try|next|write|see):? |[`'])loracook ([a-z]+)\b", text_of(file))
    assert set(told) <= set(OPTIONS)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    rendered = {re.sub(r"(index)?\.md$", "", path) for path in pages.rendered()}
    written = {
        re.sub(r"(index)?\.md$", "", str(file.relative_to(ROOT / "docs")))
        for file in (ROOT / "docs").rglob("*.md")
    }
    broken = []
    for link in links(page.read_text("utf-8")):
        place = link.partition("#")[0]
        if place.startswith(SITE):
            there = place.removeprefix(SITE).removesuffix("/") in rendered | written
        elif REPOSITORY.match(place):
            there = (ROOT / REPOSITORY.sub("", place)).exists()
        elif "://" in place or not place or ROOT / "docs" in page.parents:
            there = True  # mkdocs follows the links between its pages
        else:
            there = (page.parent / place.replace("\\", "")).exists()
        broken += [] if there else [link]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_target_of_make_that_a_page_names_is_one(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE)
    assert [target for target in named if f"\n{target}:" not in makefile] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_test_and_every_file_of_ours_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    tests = [test for test in re.findall(r"`(test_[a-z_0-9]+)`", text) if f"def {test}(" not in TESTS]
    paths = re.findall(r"\b((?:tests|loracook|benchmarks)/[\w/.-]+\w)", REPOSITORY.sub("", text))
    ours = [path for path in paths if "NAME" not in path and not path.startswith("loracook/loracook")]
    assert (tests, [path for path in ours if not (ROOT / path).exists()]) == ([], [])


def test_every_constant_that_contributing_names_is_there() -> None:
    code = TESTS + "\n".join(file.read_text("utf-8") for file in MODULES)
    named = re.findall(r"`(_?[A-Z][A-Z]+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert [constant for constant in named if not re.search(rf"^{constant}\b", code, re.MULTILINE)] == []
