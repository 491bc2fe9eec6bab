"""Prepared rows are kept under a key of everything that decides them, and of nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import loracook.data as data
from loracook.errors import RecipeError
from tests.data.kitchen import chat, json_lines, recipe, tokenizer

BASE: dict[str, Any] = {
    "dataset": {
        "path": "./a.jsonl",
        "format": "messages",
        "eval": {"path": "./b.jsonl"},
        "where": {"lang": "en"},
        "rows": 3,
    },
    "template": {"chat_template": "./own.jinja", "loss": "last_turn"},
    "train": {"max_length": 64},
}
TEMPLATE = "{% for m in messages %}{{ m['role'] + m['content'] + eos_token }}{% endfor %}"
Edit = Callable[[dict[str, Any], Path], Any]


def said(section: str, **values: Any) -> Edit:
    """An edit that writes these values into a section."""
    return lambda sections, folder: sections.setdefault(section, {}).update(values)


def rows(name: str) -> Edit:
    """An edit that changes the content of a file."""
    return lambda sections, folder: json_lines(folder / name, [chat("New?", "Yes.") | {"lang": "en"}] * 4)


def made(sections: dict[str, Any], folder: Path, known: PreTrainedTokenizerFast) -> data.Prepared:
    book = recipe(folder, **sections)
    return data.prepare(book, data.with_template(book, known), folder / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jsonl", "b.jsonl"):
        listed = [chat(f"{name} {i}?", f"{i}.") | {"lang": lang} for i in range(5) for lang in ("en", "de")]
        json_lines(tmp_path / name, listed)
    (tmp_path / "own.jinja").write_text(TEMPLATE + "{% if add_generation_prompt %}assistant{% endif %}")
    return tmp_path


DECIDING: dict[str, Edit] = {
    "the content of the rows": rows("a.jsonl"),
    "the content of the evaluation rows": rows("b.jsonl"),
    "the content of the template": lambda sections, folder: (folder / "own.jinja").write_text(
        TEMPLATE + "\n{% if add_generation_prompt %}assistant{% endif %}"
    ),
    "which template": said("template", chat_template="chatml"),
    "the loss": said("template", loss="all"),
    "the system text": said("template", system="Be brief."),
    "which rows": said("dataset", where={"lang": "de"}),
    "how many rows": said("dataset", rows=2),
    "the format": said("dataset", format="auto"),
    "the names of roles": said("dataset", map_roles={"cook": "assistant"}),
    "the names of columns": said("dataset", columns={"messages": "messages"}),
    "the evaluation": said("dataset", eval={"rows": 1}),
    "bad rows": said("dataset", on_bad_row="skip"),
    "the order": said("dataset", shuffle=False),
    "the length": said("train", max_length=32),
    "packing": said("train", packing=True),
    "the packing strategy": said("train", packing=True, packing_strategy="wrapped"),
    "packed evaluation": said("train", packing=True, eval_packing=False),
    "the seed": said("train", seed=7),
}
INDIFFERENT: dict[str, Edit] = {
    "nothing": lambda sections, folder: None,
    "the learning rate": said("train", learning_rate=1e-3),
    "the limits": said("dataset", limits={"truncated": 1}),
    "another section": said("evaluate", prompts=["Soup?"]),
    "the time of a file": lambda sections, folder: (
        shutil.copy(folder / "a.jsonl", folder / "c.jsonl")
        and (folder / "c.jsonl").replace(folder / "a.jsonl")
    ),
}


@pytest.mark.parametrize("what", DECIDING)
def test_what_decides_the_rows_changes_the_key(what: str, folder: Path) -> None:
    before = made(edited("nothing", folder), folder, tokenizer()).digest
    assert made(edited(what, folder), folder, tokenizer()).digest != before


@pytest.mark.parametrize("what", INDIFFERENT)
def test_what_does_not_decide_them_leaves_the_key(what: str, folder: Path) -> None:
    before = made(edited("nothing", folder), folder, tokenizer()).digest
    assert made(edited(what, folder), folder, tokenizer()).digest == before


def test_a_file_under_another_name_is_read_anew(folder: Path) -> None:
    sections = edited("nothing", folder)
    sections["dataset"]["path"] = "./a*"
    before = made(sections, folder, tokenizer()).digest
    (folder / "a.jsonl").rename(folder / "a.ndjson")
    assert made(sections, folder, tokenizer()).digest != before


@pytest.mark.parametrize("other", [tokenizer("<extra>"), tokenizer(bos="<s>")])
def test_another_tokenizer_changes_the_key(other: PreTrainedTokenizerFast, folder: Path) -> None:
    before = made(edited("nothing", folder), folder, tokenizer()).digest
    assert made(edited("nothing", folder), folder, other).digest != before


def test_kept_rows_are_read_again_and_not_written(folder: Path) -> None:
    first = made(edited("nothing", folder), folder, tokenizer())
    (kept,) = (folder / "cache/data").iterdir()
    written = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    again = made(edited("nothing", folder), folder, tokenizer())
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == written
    assert (list(again.train), again.statistics, again.notes) == (
        list(first.train),
        first.statistics,
        first.notes,
    )


def test_rows_that_fail_leave_nothing_kept(folder: Path) -> None:
    sections = edited("nothing", folder)
    json_lines(folder / "a.jsonl", [chat("Soup?") | {"lang": "en"}])
    with pytest.raises(RecipeError):
        made(sections, folder, tokenizer())
    assert not list(folder.glob("cache/data/*"))


def edited(what: str, folder: Path) -> dict[str, Any]:
    """The base recipe's sections after an edit."""
    sections = {name: dict(section) for name, section in BASE.items()}
    (DECIDING | INDIFFERENT)[what](sections, folder)
    return sections
