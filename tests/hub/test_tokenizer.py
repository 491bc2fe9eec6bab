"""Another tokenizer than the base model's own, on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests import processes
from tests.hub.server import Files, Hub
from tests.tiny_recipes import twin_file

TEMPLATE = "{% for message in messages %}{{ message.content }}<|endoftext|>{% endfor %}"


@pytest.fixture
def recipe(hub: Hub, tmp_path: Path) -> Path:
    """A recipe with a tokenizer on the hub, which lies there among weights."""
    tokenizer = {"name_or_path": "team/tokenizer"}
    file = twin_file("opt-350m-lora", tmp_path, tokenizer=tokenizer, dataset={"eval": None}, evaluate=None)
    hub.create("team/tokenizer", files=files(tmp_path, TEMPLATE) | {"model.safetensors": b"weights"})
    return file


def files(folder: Path, template: str) -> Files:
    """The files of the model's tokenizer with a chat template."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder / "saved")
    return {path.name: path.read_bytes() for path in (folder / "saved").iterdir()}


@pytest.mark.slow
def test_its_commit_is_recorded_and_locked_and_its_weights_are_not_downloaded(
    hub: Hub, home: Path, recipe: Path, tmp_path: Path
) -> None:
    commit = hub.repositories["team/tokenizer"].branches["main"]
    planned = json.loads(processes.run("plan", recipe.name, "--format", "json", cwd=tmp_path).stdout)
    assert "downloads the tokenizer team/tokenizer from the hub" in planned["external"]
    done = processes.run("run", recipe.name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    train = next(tmp_path.glob("runs/*/train-*"))
    assert json.loads((train / "record.json").read_text())["result"]["tokenizer_commit"] == commit
    assert (train / "adapter" / "chat_template.jinja").read_text() == TEMPLATE
    assert not list(home.glob("**/*.safetensors"))
    assert processes.run("lock", recipe.name, cwd=tmp_path).returncode == 0
    assert f"team/tokenizer@main: {commit}" in (tmp_path / "recipe.yaml.lock").read_text()
    moved = hub.repositories["team/tokenizer"].commit("main", files(tmp_path, "{{ messages }}"))
    refused = processes.run("run", "--locked", recipe.name, cwd=tmp_path)
    assert (refused.returncode, f"was {commit}, now {moved}" in refused.stderr) == (2, True)


def test_a_revision_is_the_one_that_is_read(hub: Hub, recipe: Path, tmp_path: Path) -> None:
    first = hub.repositories["team/tokenizer"].branches["main"]
    hub.repositories["team/tokenizer"].commit("main", {"README.md": b"no more"})
    gone = processes.run("plan", recipe.name, cwd=tmp_path)
    assert gone.returncode == 2
    assert gone.stderr.endswith(
        "tokenizer.name_or_path: has no tokenizer; name a folder with a tokenizer.json\n"
    )
    pinned = processes.run("plan", recipe.name, "--set", f"tokenizer.revision={first}", cwd=tmp_path)
    assert (pinned.returncode, "tokens with the same ids" in pinned.stdout) == (0, True)


def test_one_that_is_not_there_says_so(hub: Hub, recipe: Path, tmp_path: Path) -> None:
    del hub.repositories["team/tokenizer"]
    (tmp_path / "team" / "tokenizer").mkdir(parents=True)
    refused = processes.run("preview", recipe.name, cwd=tmp_path)
    assert refused.returncode == 2
    assert "tokenizer.name_or_path: no 'team/tokenizer', or it is private; " in refused.stderr
    assert "did you mean './team/tokenizer'?" in refused.stderr
