"""Prepared rows are cached by a key over everything that decides them, and prepared again if damaged."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import loracook.data as data
from docs import architecture
from loracook.data import cache
from loracook.errors import RecipeError
from loracook.progress import Progress, Silent
from loracook.store.files import MANIFEST
from tests.data.samples import chat, json_lines, recipe, tokenizer

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


def key(sections: dict[str, Any], folder: Path, known: PreTrainedTokenizerFast) -> str:
    book = recipe(folder, **sections)
    return cache.cache_key(book, data.with_template(book, known))


class Notes(Silent):
    """Progress that records its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def made(
    sections: dict[str, Any], folder: Path, known: PreTrainedTokenizerFast, progress: Progress | None = None
) -> data.Prepared:
    book = recipe(folder, **sections)
    return data.prepare(
        book, data.with_template(book, known), folder / "cache", progress=progress or Silent()
    )


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
    before = key(edited("nothing", folder), folder, tokenizer())
    assert key(edited(what, folder), folder, tokenizer()) != before


@pytest.mark.parametrize("what", INDIFFERENT)
def test_what_does_not_decide_them_leaves_the_key(what: str, folder: Path) -> None:
    before = key(edited("nothing", folder), folder, tokenizer())
    assert key(edited(what, folder), folder, tokenizer()) == before


def test_a_renamed_file_changes_the_key(folder: Path) -> None:
    sections = edited("nothing", folder)
    sections["dataset"]["path"] = "./a*"
    before = key(sections, folder, tokenizer())
    (folder / "a.jsonl").rename(folder / "a.ndjson")
    assert key(sections, folder, tokenizer()) != before


@pytest.mark.parametrize("other", [tokenizer("<extra>"), tokenizer(bos="<s>")])
def test_another_tokenizer_changes_the_key(other: PreTrainedTokenizerFast, folder: Path) -> None:
    before = key(edited("nothing", folder), folder, tokenizer())
    assert key(edited("nothing", folder), folder, other) != before


def test_cached_rows_are_reused_unchanged(folder: Path) -> None:
    first = made(edited("nothing", folder), folder, tokenizer())
    (cached,) = (folder / "cache/data").iterdir()
    written = {path: path.stat().st_mtime_ns for path in cached.iterdir()}
    again = made(edited("nothing", folder), folder, tokenizer())
    assert {path: path.stat().st_mtime_ns for path in cached.iterdir()} == written
    assert (list(again.train), again.statistics, again.notes) == (
        list(first.train),
        first.statistics,
        first.notes,
    )


def test_the_same_rows_have_the_same_digest_however_they_came_about(folder: Path) -> None:
    before = made(edited("nothing", folder), folder, tokenizer())
    assert made(edited("the format", folder), folder, tokenizer()).digest == before.digest
    assert made(edited("how many rows", folder), folder, tokenizer()).digest != before.digest


def test_packed_rows_have_the_same_digest_when_they_are_packed_again(folder: Path) -> None:
    before = made(edited("packing", folder), folder, tokenizer()).digest
    shutil.rmtree(folder / "cache")
    assert made(edited("packing", folder), folder, tokenizer()).digest == before


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lambda file: os.truncate(file, 9), Path.unlink])
@pytest.mark.parametrize("name", ["train.arrow", "evaluation.arrow", "statistics.json", MANIFEST])
def test_damaged_rows_are_prepared_again(name: str, damage: Callable[[Path], None], folder: Path) -> None:
    before = made(edited("nothing", folder), folder, tokenizer())
    rows, digest = list(before.train), before.digest
    (where,) = (folder / "cache/data").iterdir()
    damage(where / name)
    heard = Notes()
    again = made(edited("nothing", folder), folder, tokenizer(), heard)
    assert (list(again.train), again.digest) == (rows, digest)
    assert heard.notes[0].startswith("preparing the rows again: ")
    assert [path.name for path in (folder / "cache/data").iterdir()] == [where.name]


def test_cached_rows_keep_the_date_they_were_prepared_on(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}"
    (folder / "own.jinja").write_text(dated + TEMPLATE + "{% if add_generation_prompt %}assistant{% endif %}")
    request.addfinalizer(time.tzset)
    heard, digests = Notes(), []
    with pytest.MonkeyPatch.context() as patch:
        for zone in ("WEST+12", "EAST-14"):  # never on the same day
            patch.setenv("TZ", zone)
            time.tzset()
            digests.append(made(edited("nothing", folder), folder, tokenizer(), heard).digest)
    assert digests[0] == digests[1]
    assert heard.notes[-1] == "using cached prepared rows, which contain the date of that day"


def test_rows_that_fail_leave_nothing_in_the_cache(folder: Path) -> None:
    sections = edited("nothing", folder)
    json_lines(folder / "a.jsonl", [chat("Soup?") | {"lang": "en"}])
    with pytest.raises(RecipeError):
        made(sections, folder, tokenizer())
    assert not list(folder.glob("cache/data/*"))


def test_the_key_covers_the_code_that_decides_the_rows_and_no_other() -> None:
    imports, reached = architecture.package().imports, {"loracook.data.prepare"}
    while more := {name for module in reached for name in imports[module]} - reached:
        reached |= more
    package = Path(cache.__file__).parent.parent
    names = {"loracook." + ".".join(path.relative_to(package).with_suffix("").parts) for path in cache.code()}
    covered = {name.removesuffix(".__init__") for name in names}
    assert {name for name in reached - covered if name.startswith("loracook.data.")} == {
        "loracook.data.cache",  # is the key
        "loracook.data.read.propose",  # advises
        "loracook.data.tokenize.sandbox",  # refuses
        "loracook.data.warnings",  # words
    }
    assert {name for name in covered if not name.startswith("loracook.data.")} == {"loracook.recipe.derived"}
    assert covered - reached <= {"loracook.data.read", "loracook.data.tokenize"}


def test_another_version_of_loracook_prepares_the_rows_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(edited("nothing", folder), folder, tokenizer())
    versions = {"loracook": "0.0.0"}
    monkeypatch.setattr(
        "loracook.machine.versions.version", lambda name: versions.get(name) or metadata.version(name)
    )
    assert key(edited("nothing", folder), folder, tokenizer()) != before


def edited(what: str, folder: Path) -> dict[str, Any]:
    """The base recipe's sections after an edit."""
    sections = {name: dict(section) for name, section in BASE.items()}
    (DECIDING | INDIFFERENT)[what](sections, folder)
    return sections
