"""The schema for editors: no false alarm in a recipe of several files, keys inserted bare, everything told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loracook.recipe.schema import all_keys, part_at, schema
from loracook.recipe.source import read
from loracook.views.editor_schema import editor_schema
from tests.views.language_server import LanguageServer, position

ROOT = Path(__file__).parents[2]
SERVER = shutil.which("yaml-language-server")
CHILD = """\
version: 1
extends: base.yaml
lora: {loraplus: {loraplus_lr_embedding: 1e-6}, target_modules: null}
train:
  lr: 3
  learnin_rate: 3
  hub_model_id: me/it
  logging_steps: 10
  max_length: -3
  num_train_epochs: null
"""


SCHEMA = editor_schema()


def editor_part(path: tuple[str | int, ...]) -> dict[str, Any]:
    """The part of the editor's schema for a key."""
    part = SCHEMA
    for name in path:
        part = part["items"] if isinstance(name, int) else part["properties"][name]
    return part


def faults(data: Any) -> set[str]:
    """The keys that the editor's schema complains about."""
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(data)
    return {".".join(map(str, error.absolute_path)) for error in found}


@pytest.mark.parametrize("file", sorted((ROOT / "tests/recipes/valid").rglob("*.yaml")), ids=lambda f: f.name)
def test_each_file_of_a_valid_recipe_is_valid(file: Path) -> None:
    assert faults(read(file).data) == set()


def test_a_recipe_may_leave_to_others_whatever_it_lacks() -> None:
    assert faults({"version": 1}) == set()
    assert faults({"base_model": {"dtype": "bfloat16"}, "lora": {"loraplus": {}}}) == set()
    assert faults({"train": {"max_steps": None, "optim": None}, "push": None}) == set()
    assert faults({"dataset": {"sources": [{"format": "text"}]}}) == {
        "dataset.sources.0"
    }  # lists are replaced
    assert faults({"dataset": {"sources": [{"path": None}]}}) == {"dataset.sources.0.path"}


def test_what_is_wrong_in_one_file_is_wrong_in_the_editor() -> None:
    wrong = {"lora": {"r": "8", "rr": 1}, "train": {"lr": 3, "hub_model_id": "a"}, "lora_r": 3}
    assert faults(wrong) == {"lora.r", "lora", "train.lr", "train.hub_model_id", "lora_r"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("lora_r",), "use 'r' under 'lora:'"),
        (("train", "lr"), "use 'learning_rate'"),
        (("train", "hub_model_id"), "not supported: use push.repo_id"),
        (("base_model", "trust_remote_code"), None),
    ],
)
def test_a_refused_key_says_what_to_write(path: tuple[str, ...], message: str | None) -> None:
    declined = (part_at(path[:-1]) or {}).get("x-declined", {}).get(path[-1])
    assert editor_part(path)["errorMessage"] == (message or f"not supported: {declined}")


def test_every_key_tells_its_default_and_nothing_inserts_one() -> None:
    for path, part in all_keys():
        shown = editor_part(path)
        assert "default" not in shown
        if part.get("default") is not None and "properties" not in part:
            assert "default: " in shown["description"], path
    assert (
        "a number above 0 and at most 100000000; default: 10 (loracook)"
        in (editor_part(("train", "logging_steps"))["description"])
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    """The language server with our schema."""
    file = tmp_path_factory.mktemp("schema") / "recipe-1.json"
    file.write_text(json.dumps(SCHEMA), "utf-8")
    running = LanguageServer(str(SERVER), file)
    yield running
    running.stop()


@pytest.mark.skipif(SERVER is None, reason="needs npm install --global yaml-language-server")
def test_the_language_server_says_inserts_and_shows_what_a_user_needs(server: LanguageServer) -> None:
    found = server.problems("file:///recipes/child.yaml", CHILD)
    told = {marked: problem["message"] for marked, problem in found.items()}
    assert told == {
        "3": "use 'learning_rate'",
        "learnin_rate": "Property learnin_rate is not allowed.",
        "me/it": "not supported: use push.repo_id",
        "-3": "Value is below the minimum of 8.",
    }
    document = {"uri": "file:///recipes/child.yaml"}
    unknown = found["learnin_rate"]
    context = {"diagnostics": [unknown]}
    fixes = server.ask(
        "textDocument/codeAction", textDocument=document, range=unknown["range"], context=context
    )
    assert "learning_rate" in [fix["title"] for fix in fixes]
    at = position(CHILD, "logging_steps")
    hover = server.ask("textDocument/hover", textDocument=document, position=at)["contents"]["value"]
    assert "a number above 0 and at most 100000000; default: 10 (loracook)" in hover
    assert "Example:\n\n```yaml\n10\n```" in hover

    parent = "version: 1\nbase_model:\n  name_or_path: me/it\n\n"
    assert server.problems("file:///recipes/base.yaml", parent) == {}
    items = server.ask(
        "textDocument/completion",
        textDocument={"uri": "file:///recipes/base.yaml"},
        position={"line": 3, "character": 0},
    )["items"]
    inserted = {item["label"]: item["insertText"] for item in items}
    assert set(inserted) == set(schema()["properties"]) - {"version", "base_model"}
    assert inserted["train"].split() == ["train:"]
    assert not any("\n" in text.strip() for text in inserted.values())
