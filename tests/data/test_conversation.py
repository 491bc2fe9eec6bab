"""Each answer of a conversation is asked for with the token ids that training conditions it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loracook.data import Conversation, with_template
from loracook.data.eval_prompts import Asker, last_turn
from loracook.data.read.rows import Chat, Pair, RowError
from loracook.data.tokenize.encode import encode
from loracook.data.tokenize.render import Renderer
from tests.data.samples import recipe, tokenizer
from tests.data.test_eval_prompts import FAMILIES

ANSWERS = ("Leek.", "", "<think>It is cold</think>Potato, two of them")
WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
)
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}"
TURNS = "<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def conversation(folder: Path, **template: Any) -> Conversation:
    """A new conversation under a template section."""
    book = recipe(folder, dataset={"path": "./chat.jsonl"}, template=template)
    return Conversation(Asker(book, with_template(book, tokenizer())))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_of_a_later_turn_is_that_of_a_row_of_all_turns(name: str, tmp_path: Path) -> None:
    talk = conversation(tmp_path, chat_template=name)
    for number, answer in enumerate(ANSWERS):
        talk = talk.answered(f"Which soup {number}?", answer)
    asked = talk.prompt_ids("And then?")
    tokens = talk.asker.tokenizer
    messages = (*talk.messages, {"role": "user", "content": "And then?"})
    renderer = Renderer(talk.asker.recipe, tokens)
    prompt_length = None if renderer.masks else len(messages)
    row = Chat((*messages, {"role": "assistant", "content": "Bread"}), prompt_length=prompt_length)
    turn = last_turn(encode([renderer.render(row)], tokens)[0])
    assert turn
    assert asked == turn.prompt_ids
    assert "Leek." in tokens.decode(asked)
    assert "And then?" in tokens.decode(asked)
    assert talk.prompt_ids("And then?") == asked


def test_a_system_message_of_the_conversation_takes_the_place_of_the_recipe_s(tmp_path: Path) -> None:
    talk = conversation(tmp_path, chat_template="chatml", system="Be brief.").answered("Hi", "Ho")
    changed = talk.with_system("Be kind.").with_system("Be loud.")
    texts = [each.asker.tokenizer.decode(each.prompt_ids("Why?")) for each in (talk, changed)]
    assert [talk.system, changed.system] == ["Be brief.", "Be loud."]
    assert texts[1] == texts[0].replace("Be brief.", "Be loud.")
    assert "Ho" in texts[1]


@pytest.mark.parametrize("beginning", [WITHOUT_SYSTEM, DROPS_SYSTEM])
def test_a_template_without_a_system_role_takes_no_system_message(beginning: str, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(beginning + TURNS)
    talk = conversation(tmp_path, chat_template="./own.jinja", loss="last_turn").answered("Hi", "Ho")
    with pytest.raises(RowError, match="system"):
        talk.with_system("Be kind.")
    assert talk.prompt_ids("Why?")


def test_without_a_chat_template_each_prompt_stands_by_itself(tmp_path: Path) -> None:
    talk = conversation(tmp_path, chat_template="none", loss="completion")
    again = talk.answered("The soup is", " leek")
    row = Renderer(talk.asker.recipe, talk.asker.tokenizer).render(Pair("The soup is", " leek"))
    turn = last_turn(encode([row], talk.asker.tokenizer)[0])
    assert turn
    assert talk.prompt_ids("The soup is") == again.prompt_ids("The soup is") == turn.prompt_ids
    with pytest.raises(RowError, match="no chat template"):
        talk.with_system("Be kind.")
