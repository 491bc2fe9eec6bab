"""Ollama's template renders what training renders, or there is none and the reason is said."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loracook import data
from loracook.data.ollama import PROMPT, TemplateError, ollama_template
from loracook.data.tokenize.chat_mask import ChatRenderer
from loracook.recipe.recipe import load
from tests.tiny_models import LINES, tokenizer_of

PART = re.compile(r"\{\{ (.*?) \}\}")
RANGE, START = "range $i, $m := .Messages", 'if and (eq $i 0) (ne .Role "system")'


def rendered(template: str, messages: Sequence[dict[str, Any]]) -> str:
    """What Go's text/template makes of the constructs that ours use."""
    parts = PART.split(template)  # text and actions in turn
    first, last = parts.index(RANGE), len(parts) - 1 - parts[::-1].index("end")
    text = parts[0]
    for number, message in enumerate(messages):
        texts, chosen = [True], [True]  # whether the text of each nested action is written, was written
        for index in range(first + 1, last):
            part = parts[index]
            if index % 2 == first % 2:
                action = part.removeprefix("else ")
                if part == "end":
                    texts.pop(), chosen.pop()
                elif part == ".Content":
                    text += message["content"] if all(texts) else ""
                else:
                    holds = (
                        number == 0 and message["role"] != "system"
                        if action == START
                        else message["role"] == re.fullmatch(r'if eq \.Role "(\w+)"', action)[1]  # type: ignore[index]
                    )
                    if part.startswith("else "):
                        texts[-1], chosen[-1] = holds and not chosen[-1], chosen[-1] or holds
                    else:
                        texts.append(holds), chosen.append(holds)
            elif all(texts):
                text += part
    return text + "".join(parts[last + 1 :])


def chats(*roles: str, content: str = "soup", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{content} {n}"} for n, role in enumerate(roles)], **more}


USUAL = [
    chats("user", "assistant"),
    chats("system", "user", "assistant", "user", "assistant"),
    chats("user", "assistant", "user", "assistant", "user", "assistant"),
]
WITHOUT_SYSTEM = [chats("user", "assistant"), chats("user", "assistant", "user", "assistant")]


def rendering(folder: Path, template: str | None, rows: list[dict[str, Any]], **sections: Any) -> Any:
    """What there is for Ollama, and the renderer of the chat template."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "version": 1, "base_model": {"name_or_path": "./model"}, "dataset": {"path": "./rows.jsonl"},
        "template": {"chat_template": template} if template else {}, "lora": {"target_modules": "all-linear"},
        "train": {"max_steps": 1}, **sections,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    loaded = load(folder / "recipe.yaml")
    tokenizer = data.with_template(loaded, tokenizer_of(LINES))
    return ollama_template(loaded, tokenizer), ChatRenderer(tokenizer)


@pytest.mark.parametrize(
    ("template", "rows", "trims"),
    [
        ("chatml", USUAL, False),
        ("plain", USUAL, False),
        ("llama3", USUAL, True),
        ("gemma", WITHOUT_SYSTEM, True),
        ("phi3", USUAL, False),
        ("qwen2_5", USUAL, False),
    ],
)
def test_the_training_conversations_are_rendered_as_they_were_trained(
    template: str, rows: list[dict[str, Any]], trims: bool, tmp_path: Path
) -> None:
    (go, count, note), renderer = rendering(tmp_path, template, rows)
    assert count == len(rows)
    assert ("trims" in note) == trims
    for row in rows:
        messages = row["messages"][:-1]
        assert rendered(go, messages) == renderer.prompt(messages)


def test_a_default_system_message_is_that_of_the_chat_template(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(
        "{% if messages[0]['role'] != 'system' %}SYSTEM: be brief\n{% endif %}"
        "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
    )
    (go, _, _), renderer = rendering(tmp_path, "./own.jinja", USUAL)
    for row in USUAL:
        messages = row["messages"][:-1]
        assert rendered(go, messages) == renderer.prompt(messages)
    assert rendered(go, USUAL[0]["messages"][:-1]).startswith("SYSTEM: be brief\n")


CALL = {"type": "function", "function": {"name": "cook", "arguments": {"dish": "soup"}}}


@pytest.mark.parametrize(
    ("template", "rows", "reason"),
    [
        ("{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}", USUAL, "otherwise"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", USUAL, "changes what is said"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", USUAL, "changes what is said"),
        ('{% for m in messages %}{{ \'"""\' }}{{ m.content }}{% endfor %}', USUAL, "cannot be written"),
        ("{% for m in messages %}{{ '{{' }}{{ m.content }}{% endfor %}", USUAL, "cannot be written"),
        (
            "{% for m in messages %}{{ 'long ' if m.content | length > 30 }}{{ m.content }}{% endfor %}",
            [chats("user", "assistant", content="soup " * 9)],
            "otherwise than in training",
        ),
        (None, [chats("user", "assistant", tools=[CALL])], "rows use tools"),
    ],
)
def test_a_template_that_ollama_cannot_have_is_none(
    template: str | None, rows: list[dict[str, Any]], reason: str, tmp_path: Path
) -> None:
    if template:
        (tmp_path / "own.jinja").write_text(template)
    with pytest.raises(TemplateError, match=reason):
        rendering(tmp_path, "./own.jinja" if template else "qwen3", rows)


def test_text_without_chats_is_given_as_it_is(tmp_path: Path) -> None:
    (go, count, _), _ = rendering(tmp_path, "none", [{"text": line} for line in LINES])
    assert (go, count) == (PROMPT, 0)
