"""Pushing, over a hub on the loopback and into a local folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from loracook.errors import LoracookError, PushError
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe, load
from loracook.stages import push
from loracook.stages.base import Consent, Folders
from loracook.store.files import file_facts
from loracook.store.record import write_record
from tests.hub.server import TOKEN, Files, Hub, as_endpoint
from tests.records import record

RECIPE = """
version: 1
name: soup
base_model: {name_or_path: microsoft/phi-2}
dataset: {path: ./rows.jsonl}
lora: {r: 4}
"""
TOKENIZER = {
    "tokenizer.json": Tokenizer(WordLevel({"?": 0}, unk_token="?")).to_str().encode(),
    "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}',
}
ADAPTER = {
    "adapter_config.json": b'{"r": 4}',
    "adapter_model.safetensors": b"adapter weights",
    **TOKENIZER,
    "chat_template.jinja": b"{{ messages }}",
}
MODEL = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"first half",
    "model-00002-of-00002.safetensors": b"second half",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    **TOKENIZER,
}
RESIDUE = {
    "training_args.bin": b"pickle",
    ".env": b"HF_TOKEN=x",
    "optimizer.pt": b"pickle",
    "log.jsonl": b"{}",
}
YES = Consent(push=True)


class Notes(Silent):
    """Keeps what a stage notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with as_endpoint(monkeypatch, tmp_path / "home") as running:
        yield running


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    run = tmp_path / "runs" / "soup"
    train = finished(run / "train-1", "adapter", ADAPTER | RESIDUE)
    merge = finished(run / "merge-1", "model", MODEL | RESIDUE)
    return Folders(run / "push-1", {"train": train, "merge": merge}, run, tmp_path / "cache")


def finished(stage: Path, folder: str, files: Files) -> Path:
    """A stage that is done, with these files."""
    (stage / folder).mkdir(parents=True)
    for name, content in files.items():
        (stage / folder / name).write_bytes(content)
    merged = {
        "base": "trained",
        "prompts": 5,
        "logits_difference": 8e-7,
        "logits_difference_from_trained": None,
    }
    versions = {"peft": "0.21.2", "platform": "Linux"}
    write_record(stage, record(versions=versions, files=file_facts(stage), result=merged))
    return stage


def recipe(folders: Folders, section: str) -> Recipe:
    """A recipe that pushes as the section says."""
    file = folders.run.parents[1] / "soup.yaml"
    file.write_text(f"{RECIPE}push: {section}\n")
    return load(file)


def to_hub(folders: Folders, section: str = "{repo_id: me/soup}", consent: Consent = YES) -> dict[str, Any]:
    """Push to the hub."""
    return push.run(recipe(folders, section), folders, consent=consent, progress=Silent())


def card_of(folders: Folders) -> Files:
    return {"README.md": (folders.own / "README.md").read_bytes()}


def written_below(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()
    }


def test_a_push_makes_a_private_repository_with_the_adapter_and_its_card(
    server: Hub, folders: Folders
) -> None:
    result = to_hub(folders)

    repository = server.repositories["me/soup"]
    files = ADAPTER | card_of(folders)
    assert repository.private
    assert repository.files() == files
    assert result == {
        "repo_id": "me/soup",
        "serving": [],
        "commit": repository.branches["main"],
        "url": f"{server.url}/me/soup/commit/{repository.branches['main']}",
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    assert list(server.objects.values()) == [b"adapter weights"]


def test_a_merged_model_is_pushed_whole_to_a_public_branch(server: Hub, folders: Folders) -> None:
    to_hub(folders, "{repo_id: team/soup, what: merged, private: false, revision: v2}\nmerge: {}")

    repository = server.repositories["team/soup"]
    assert not repository.private
    assert repository.files("main") == {}
    assert repository.files("v2") == MODEL | card_of(folders)


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda own: None])
def test_a_push_that_was_stopped_before_its_record_finds_its_commit(
    server: Hub, folders: Folders, harm: Callable[[Path], object]
) -> None:
    first = to_hub(folders)
    harm(folders.own)
    server.asked.clear()

    assert to_hub(folders) == first
    assert "commit" not in server.asked


def test_a_commit_whose_answer_was_lost_is_not_made_twice(server: Hub, folders: Folders) -> None:
    server.faults["commit"] = ["done, then cut"]
    result = to_hub(folders)

    repository = server.repositories["me/soup"]
    assert server.asked.count("commit") == 1
    assert result["commit"] == repository.branches["main"]
    assert len(repository.commits) == 2  # the hub's first one, and ours


def test_a_pull_request_whose_answer_was_lost_is_not_opened_twice(server: Hub, folders: Folders) -> None:
    server.create("team/soup", files={"config.json": b"theirs"})
    server.faults["commit"] = ["done, then cut"]
    result = to_hub(folders, "{repo_id: team/soup, create_pr: true, commit_message: More salt}")

    repository = server.repositories["team/soup"]
    assert repository.pull_requests == ["More salt"]
    assert repository.files() == {"config.json": b"theirs"}
    assert repository.files("refs/pr/1") == ADAPTER | card_of(folders)
    assert result["url"] == f"{server.url}/team/soup/discussions/1"


def test_a_hub_that_keeps_failing_ends_the_push_and_not_the_result(server: Hub, folders: Folders) -> None:
    server.faults["create"] = ["403"]

    with pytest.raises(PushError) as caught:
        to_hub(folders)
    assert caught.value.exit_code == 5
    assert str(caught.value) == (
        "the hub answered 403 to POST /api/repos/create: not now, Bearer …; the local result in "
        f"'{folders.run}' is complete, run the same command again to retry the push alone"
    )
    assert to_hub(folders)["commit"] == server.repositories["me/soup"].branches["main"]


def test_a_repository_that_holds_something_is_replaced_with_the_users_word_alone(
    server: Hub, folders: Folders
) -> None:
    there = {"notes.txt": b"theirs", "model.safetensors": b"an older model"}
    repository = server.create("me/soup", files=there)

    with pytest.raises(PushError, match=r"'me/soup' .*'model.safetensors'; add --overwrite"):
        to_hub(folders)
    assert repository.files() == there

    to_hub(folders, consent=Consent(push=True, overwrite=True))
    assert repository.files() == {"notes.txt": b"theirs"} | ADAPTER | card_of(folders)


def test_what_is_private_is_not_pushed_where_all_can_see_it(server: Hub, folders: Folders) -> None:
    repository = server.create("me/soup", private=False)

    with pytest.raises(PushError, match="'me/soup' is public"):
        to_hub(folders)
    assert repository.files() == {}


def test_nothing_leaves_the_machine_without_the_users_word(server: Hub, folders: Folders) -> None:
    for ask in (
        lambda: to_hub(folders, consent=Consent()),
        lambda: push.preflight(recipe(folders, "{repo_id: me/soup}"), Consent()),
    ):
        with pytest.raises(LoracookError, match="'me/soup' requires --push"):
            ask()
    assert server.asked == []


def test_the_token_is_written_nowhere(
    server: Hub, folders: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.faults["create"] = ["500"]  # its message repeats the token
    progress = Notes()
    push.run(recipe(folders, "{repo_id: me/soup}"), folders, consent=YES, progress=progress)

    told = "the hub answered 500 to POST /api/repos/create: not now, Bearer …"
    assert progress.notes[1] == f"retrying in 1 s: {told}"
    told = {"notes": str(progress.notes), "output": str(capfd.readouterr()), **written_below(tmp_path)}
    assert [place for place, text in told.items() if TOKEN in text] == []


def test_a_hub_is_checked_before_training(server: Hub, folders: Folders) -> None:
    push.preflight(recipe(folders, "{repo_id: me/soup}"), YES)
    push.preflight(recipe(folders, "{repo_id: team/soup}"), YES)
    server.create("other/soup")
    push.preflight(recipe(folders, "{repo_id: other/soup}"), YES)
    push.preflight(recipe(folders, "{folder: published}"), Consent())

    assert set(server.asked) == {"whoami", "info", "tree", "write_check"}
    assert list(server.repositories) == ["other/soup"]


def test_a_push_that_would_be_refused_is_refused_before_training(server: Hub, folders: Folders) -> None:
    server.create("me/full", files={"config.json": b"{}"})
    server.create("me/shown", private=False)
    server.create("other/closed").writable = False

    assert [
        refusal(folders, repo_id) for repo_id in ("me/full", "me/shown", "other/closed", "readers/new")
    ] == [
        "2: 'me/full' already contains 'config.json'; add --overwrite to replace its files",
        "2: 'me/shown' is public, but the recipe says private; set push.private: false, "
        "or make the repository private on the hub",
        "3: the hub answered 403 to GET /api/models/other/closed/auth-check/write: you may not write here",
        "3: 'me' cannot create repositories under 'readers'; set push.repo_id: me/… "
        "or log in with another account",
    ]


def test_a_token_that_cannot_write_is_noticed_before_training(
    server: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.who = server.who | {"auth": {"accessToken": {"role": "read"}}}
    assert refusal(folders, "me/new").startswith("3: the token of 'me' is read-only")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert refusal(folders, "me/new").startswith("3: the hub answered 401 to GET /api/whoami-v2")
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(folders, "me/new").startswith("3: no Hugging Face token; set HF_TOKEN")


def test_a_hub_that_is_not_there_is_noticed_before_training(
    server: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert refusal(folders, "me/new").startswith(f"3: Cannot reach {server.url}/api/whoami-v2: offline mode")


def refusal(folders: Folders, repo_id: str) -> str:
    """With which exit code, and why, a push is refused before training."""
    with pytest.raises(LoracookError) as caught:
        push.preflight(recipe(folders, f"{{repo_id: {repo_id}}}"), YES)
    return f"{caught.value.exit_code}: {caught.value}"


def test_a_local_push_needs_no_word_and_no_hub(folders: Folders) -> None:
    local = recipe(folders, "{folder: published}")
    result = push.run(local, folders, consent=Consent(), progress=Silent())

    published = folders.run / "published"
    assert {path.name: path.read_bytes() for path in published.iterdir()} == ADAPTER | card_of(folders)
    facts = file_facts(published)
    elsewhere = {f"../published/{name}": fact for name, fact in facts.items()}
    assert result == {"folder": "published", "files": facts, "elsewhere": elsewhere, "serving": []}


def test_a_local_push_takes_the_place_of_the_one_before(folders: Folders) -> None:
    push.run(recipe(folders, "{folder: published}"), folders, consent=Consent(), progress=Silent())
    (folders.run / "published.part").mkdir()  # one that was killed
    (folders.run / "published.part" / "adapter_config.json").write_text("half")
    merged = recipe(folders, "{folder: published, what: merged}\nmerge: {}")
    push.run(merged, folders, consent=Consent(), progress=Silent())

    published = {path.name: path.read_bytes() for path in (folders.run / "published").iterdir()}
    assert published == MODEL | card_of(folders)
    assert sorted(path.name for path in folders.run.iterdir()) == [
        ".published.json",
        "merge-1",
        "published",
        "push-1",
        "train-1",
    ]


def test_a_local_push_replaces_no_model_that_was_there_before(folders: Folders) -> None:
    mine = folders.run / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my notes")
    with pytest.raises(LoracookError, match=r"README\.md' was not created by a push"):
        push.run(recipe(folders, "{folder: mine}"), folders, consent=Consent(), progress=Silent())
    (mine / "README.md").unlink()
    for _ in range(2):
        push.run(recipe(folders, "{folder: mine}"), folders, consent=Consent(), progress=Silent())
    (mine / "config.json").mkdir()
    with pytest.raises(LoracookError, match=r"config\.json' was not created by a push"):
        push.run(recipe(folders, "{folder: mine}"), folders, consent=Consent(), progress=Silent())


def test_a_local_push_replaces_nothing_that_was_not_pushed(folders: Folders) -> None:
    (folders.run / "mine").mkdir()
    (folders.run / "mine" / "thesis.txt").write_text("five years")
    before = written_below(folders.run)

    with pytest.raises(LoracookError, match=r"was not created by a push"):
        push.run(recipe(folders, "{folder: mine}"), folders, consent=Consent(), progress=Silent())
    assert before.items() <= written_below(folders.run).items()


def test_a_push_says_in_the_plan_what_goes_where(folders: Folders) -> None:
    sections = (
        "{folder: published}",
        "{repo_id: me/soup}",
        "{repo_id: me/soup, what: merged, private: false, revision: v2}\nmerge: {}",
        "{repo_id: me/soup, create_pr: true}",
    )
    assert [push.describe(recipe(folders, section)) for section in sections] == [
        "adapter to published/",
        "adapter to the hub as me/soup (private)",
        "merged model to the hub as me/soup (public, branch v2)",
        "adapter to the hub as me/soup (private, as a pull request)",
    ]


def test_a_push_comes_after_what_it_sends_and_what_its_card_tells(folders: Folders) -> None:
    plain = recipe(folders, "{folder: published}")
    merged = recipe(folders, "{folder: published, what: merged}\nmerge: {}\nevaluate: {prompts: [Hello]}")

    assert [push.after(plain), push.after(merged)] == [("train",), ("train", "merge", "evaluate")]
