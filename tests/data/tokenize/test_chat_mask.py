"""A template that marks no answers is masked by what each answer adds to its prompt, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from loracook.data.read.rows import Message, RowError
from loracook.data.tokenize import chat_mask, template
from loracook.data.tokenize.chat_mask import ChatRenderer
from tests.data.samples import chat, tokenizer

UNTRAINABLE = {"idefics3", "llava_next", "smolvlm"}
"""Templates of vision models, which take no plain text."""
STOPS_IN_THE_NEXT_TURN = {"glm4moe"}
"""TRL's variant appends the next turn's marker, which the model's own template does not write."""
REWRITES_EARLIER_TURNS = {
    "gptoss",
    "phi3",
    "phi3_5",
    "qwen3",
    "qwen3_5_nothink",
    "qwen3_5_think",
    "qwen3_6",
}
THINKS = """{%- for m in messages -%}{{ '<' + m.role + '>' }}
{%- if m.role == 'assistant' and loop.last and m.reasoning -%}{{ '<think>' + m.reasoning + '</think>' }}{%- endif -%}
{{ m.content + eos_token }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<assistant><think>' }}{%- endif -%}"""
ANSWERS = chat("Which soup?", "<b>Leek.</b>", "More?", "<think, then serve>")["messages"]


def answers(chat_template: str, messages: list[Message]) -> list[str]:
    """What a template has the assistant write."""
    made = tokenizer(*dict.fromkeys(template.MARKER.findall(chat_template)), bos="<s>")
    made.chat_template = chat_template
    text, spans = ChatRenderer(made).text_and_answers(messages)
    return [text[start:end] for start, end in spans]


def trl(name: str) -> str:
    """The text of one of TRL's templates."""
    return (template._trl_templates() / f"{name}.jinja").read_text("utf-8")


def with_training_variant() -> list[str]:
    """The templates of which TRL has one that marks answers as well."""
    variants = template._trl_templates().glob("*_training.jinja")
    return sorted({path.stem.removesuffix("_training") for path in variants} - UNTRAINABLE)


@pytest.mark.parametrize("name", with_training_variant())
def test_without_marks_the_same_is_trained_as_with_trl_s(name: str) -> None:
    one, several = chat("Soup?", "Leek.")["messages"], chat("Soup?", "Leek.", "More?", "No.")["messages"]
    for messages in (one, several):
        if messages is several and name in REWRITES_EARLIER_TURNS:
            with pytest.raises(RowError, match="cannot mask: the chat template rewrites earlier turns"):
                answers(trl(name), messages)
            continue
        expected = answers(trl(f"{name}_training"), messages)
        if name in STOPS_IN_THE_NEXT_TURN:
            expected = [answer.removesuffix("<|user|>") for answer in expected]
        assert answers(trl(name), messages) == expected


@pytest.mark.parametrize(
    ("name", "end"), [("llama3_1", "<|eot_id|>"), ("gemma4", "<turn|>"), ("lfm2_2_5", "<|im_end|>")]
)
def test_templates_without_a_training_variant_are_masked(name: str, end: str) -> None:
    messages = chat("Soup?", "Leek.", "More?", "No.")["messages"]
    assert answers(trl(name), messages) == [f"Leek.{end}", f"No.{end}"]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ({}, ["<b>Leek.</b></s>", "<think, then serve></s>"]),
        ({"reasoning": "It is cold."}, None),
    ],
)
def test_an_answer_begins_where_it_parts_from_its_prompt(first: dict[str, Any], expected: Any) -> None:
    messages = [ANSWERS[0], ANSWERS[1] | first, *ANSWERS[2:]]
    if expected is None:
        with pytest.raises(RowError, match="cannot mask"):
            answers(THINKS, messages)
    else:
        assert answers(THINKS, messages) == expected
    assert answers(THINKS, [ANSWERS[0], ANSWERS[1] | {"reasoning": "Cold."}]) == [
        "Cold.</think><b>Leek.</b></s>"
    ]


def test_a_chat_that_the_assistant_opens_is_masked() -> None:
    opening = [{"role": "assistant", "content": "Hello!"}, *ANSWERS[:2]]
    assert answers(THINKS, opening) == ["Hello!</s>", "<b>Leek.</b></s>"]


@pytest.mark.parametrize("name", ["gemma4", "gemma4_v5", "diffusion_gemma_training"])
def test_a_text_that_the_template_moves_behind_a_tool_result_is_refused(name: str) -> None:
    call, result = chat_mask.TOOL_CALL, chat_mask.TOOL_RESULT
    question, answer = chat("Soup?", "Leek.")["messages"]
    assert answers(trl(name), [question, call, result, answer])[-1].startswith("Leek.")
    with pytest.raises(RowError, match="the text of a tool call after its result; use one such as qwen3"):
        answers(trl(name), [question, {**call, "content": "I look."}, result, answer])
