"""Another tokenizer than the base model's own: held against that, and read as a stranger's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from loracook.errors import RecipeError
from loracook.model import fetch_tokenizer, read_tokenizer, tokenizer_files
from loracook.planner import plan
from loracook.recipe.allowed import NOTHING, Allowed
from loracook.recipe.recipe import Recipe, load
from loracook.report.shareable import shareable
from tests.model.test_refusals import config
from tests.tiny_models import LINES, tokenizer_of

SECTIONS = {"dataset": {"path": "./rows.jsonl"}, "lora": {"r": 4}}
OTHERS = "name a tokenizer made from the base model's own"


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    """A folder with a model, which has a tokenizer of its own, and a copy of that with a chat template."""
    tokenizer = tokenizer_of(LINES)
    config("llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "other")
    (tmp_path / "rows.jsonl").write_text('{"text": "soup"}\n')
    return tmp_path


def recipe_on(kitchen: Path, name: str = "./other", allowed: Allowed = NOTHING, **keys: Any) -> Recipe:
    base = {"name_or_path": "./model"}
    sections = {"version": 1, "base_model": base, "tokenizer": {"name_or_path": name, **keys}, **SECTIONS}
    (kitchen / "recipe.yaml").write_text(json.dumps(sections))
    return load(kitchen / "recipe.yaml", allowed=allowed)


def notes(recipe: Recipe) -> tuple[str, ...]:
    return read_tokenizer(recipe, fetch_tokenizer(recipe, Path("unused"))).notes


def refusal(recipe: Recipe) -> str:
    with pytest.raises(RecipeError) as refused:
        notes(recipe)
    problem = refused.value.problems[0]
    assert problem.path == ("tokenizer", "name_or_path")
    return problem.message


def changed(kitchen: Path, change: Callable[[PreTrainedTokenizerFast], Any]) -> None:
    """The other tokenizer, changed."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(kitchen / "other")
    change(tokenizer)
    tokenizer.save_pretrained(kitchen / "other")


def edited(file: Path, change: Callable[[Any], Any]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def swap(data: Any) -> None:
    """Give the last three tokens of a vocabulary each other's ids."""
    vocabulary = data["model"]["vocab"]
    a, b, c = list(vocabulary)[-3:]
    vocabulary[a], vocabulary[b], vocabulary[c] = vocabulary[b], vocabulary[c], vocabulary[a]


def test_the_same_tokens_and_more_are_taken_with_all_else(kitchen: Path) -> None:
    changed(kitchen, lambda tokenizer: tokenizer.add_tokens(["<|im_end|>"], special_tokens=True))
    recipe = recipe_on(kitchen, eos_token="<|im_end|>", extra_special_tokens=["<|tool|>"])
    read = read_tokenizer(recipe, kitchen / "model")
    assert read.notes == (
        "tokenizer.name_or_path has the base model's 400 tokens with the same ids, and 1 more",
    )
    assert read.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|tool|>"]) == [400, 401]
    assert read.tokenizer.eos_token == "<|im_end|>"
    assert "message.content" in str(read.tokenizer.chat_template)


def test_other_ids_are_refused_with_how_many_and_one_of_them(kitchen: Path) -> None:
    edited(kitchen / "other" / "tokenizer.json", swap)
    assert refusal(recipe_on(kitchen)) == (
        f"3 of the base model's 400 tokens have other ids in it, such as 'Ġlazy': 398, not 397; {OTHERS}"
    )


def test_a_token_that_is_missing_is_refused(kitchen: Path) -> None:
    changed(kitchen, lambda _: None)
    edited(kitchen / "model" / "tokenizer.json", lambda data: data["model"]["vocab"].update({"Ġyes": 400}))
    assert refusal(recipe_on(kitchen)) == (
        f"1 of the base model's 401 tokens have other ids in it, such as 'Ġyes': none, not 400; {OTHERS}"
    )


def test_ids_beyond_all_rows_are_refused(kitchen: Path) -> None:
    edited(kitchen / "other" / "tokenizer.json", lambda data: data["model"]["vocab"].update({"Ġyes": 450}))
    assert refusal(recipe_on(kitchen)) == (
        f"its 'Ġyes' has the id 450, beyond the base model's 400 and after a gap; {OTHERS}"
    )


def test_texts_that_are_tokenized_otherwise_are_noted(kitchen: Path) -> None:
    edited(kitchen / "other" / "tokenizer.json", lambda data: data["model"]["merges"].clear())
    assert notes(recipe_on(kitchen))[1:] == (
        "tokenizer.name_or_path tokenizes some texts otherwise than the base model's own tokenizer",
    )


def remove(file: Path) -> None:
    file.unlink()


def break_off(file: Path) -> None:
    file.write_text(file.read_text()[:-99])


@pytest.mark.parametrize(
    ("harm", "why"), [(remove, "it has none"), (break_off, "its tokenizer cannot be read: ")]
)
def test_without_a_tokenizer_of_the_model_the_size_alone_is_compared(
    kitchen: Path, harm: Callable[[Path], None], why: str
) -> None:
    (kitchen / "model" / "tokenizer_config.json").unlink()
    harm(kitchen / "model" / "tokenizer.json")
    changed(kitchen, lambda tokenizer: tokenizer.add_tokens(["<|im_end|>"], special_tokens=True))
    said = notes(recipe_on(kitchen))
    assert len(said) == 1
    assert said[0].startswith(
        f"tokenizer.name_or_path was not compared with the base model's own tokenizer: {why}"
    )
    edited(kitchen / "model" / "config.json", lambda data: data.update(vocab_size=380))
    assert refusal(recipe_on(kitchen)) == (
        f"20 of its 401 tokens have ids beyond the base model's vocab_size of 380; {OTHERS}"
    )


def test_settings_that_cannot_be_read_are_the_own_tokenizers_alone(kitchen: Path) -> None:
    (kitchen / "model" / "tokenizer_config.json").write_text("{")
    assert "its tokenizer_config.json cannot be read" in notes(recipe_on(kitchen))[0]


def test_a_folder_without_a_tokenizer_is_refused(kitchen: Path) -> None:
    (kitchen / "empty").mkdir()
    for name in ("./empty", "./rows.jsonl", "./other/tokenizer.json"):
        assert refusal(recipe_on(kitchen, name)) == "has no tokenizer; name a folder with a tokenizer.json"
    assert refusal(recipe_on(kitchen, "./none")) == "'./none' does not exist; check the path"


def test_a_link_out_is_refused_before_anything_is_read(kitchen: Path) -> None:
    inside = kitchen / "inside"
    for name in ("model", "other"):
        shutil.copytree(kitchen / name, inside / name)
    (inside / "other" / "tokenizer.json").unlink()
    (inside / "other" / "tokenizer.json").symlink_to(kitchen / "other" / "tokenizer.json")
    (inside / "rows.jsonl").write_text('{"text": "soup"}\n')
    recipe = recipe_on(inside)
    assert refusal(recipe).startswith("its tokenizer.json links to a place outside the recipe's folder")
    with pytest.raises(RecipeError, match="links to a place outside"):
        plan(recipe)
    (inside / "other" / "tokenizer.json").unlink()
    os.mkfifo(inside / "other" / "tokenizer.json")
    assert "is not a regular file" in refusal(recipe)


def test_a_file_elsewhere_is_not_read_into_it(kitchen: Path) -> None:
    (kitchen / "secret.txt").write_text("secret")
    edited(
        kitchen / "other" / "tokenizer_config.json",
        lambda data: data.update(vocab_file=str(kitchen / "secret.txt")),
    )
    assert "a file outside of its folder; remove it there" in refusal(recipe_on(kitchen))


def test_its_own_code_is_never_run(kitchen: Path) -> None:
    (kitchen / "other" / "mine.py").write_text("raise SystemExit('code was run')\n")
    edited(
        kitchen / "other" / "tokenizer_config.json",
        lambda data: data.update(auto_map={"AutoTokenizer": ["mine.Mine", None]}, tokenizer_class="Mine"),
    )
    assert refusal(recipe_on(kitchen)) == (
        "requires its own code to be run, which is allowed to base models alone; name another"
    )


def test_its_files_decide_the_folder_of_training_and_where_they_lie_does_not(kitchen: Path) -> None:
    first = plan(recipe_on(kitchen)).stages[0].digest
    shutil.copytree(kitchen / "other", kitchen / "elsewhere" / "other")
    assert plan(recipe_on(kitchen, "./elsewhere/other")).stages[0].digest == first
    (kitchen / "other" / "weights.safetensors").touch()
    assert plan(recipe_on(kitchen)).stages[0].digest == first
    changed(kitchen, lambda tokenizer: setattr(tokenizer, "chat_template", "{{ messages[0].content }}"))
    assert plan(recipe_on(kitchen)).stages[0].digest != first
    assert {file.name for file in tokenizer_files(recipe_on(kitchen))} == {
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_where_it_lies_on_this_machine_is_not_published(kitchen: Path) -> None:
    recipe = recipe_on(kitchen, str(kitchen / "other"), Allowed((kitchen,)))
    assert shareable(recipe)["tokenizer"]["name_or_path"] == "./other"
    commit = "0" * 40
    place = f"./models--team--tokenizer/snapshots/{commit}"
    assert shareable(recipe_on(kitchen, place))["tokenizer"] == {
        "name_or_path": "team/tokenizer",
        "revision": commit,
    }
