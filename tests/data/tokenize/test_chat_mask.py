"""A template that marks no answers is masked by what each answer adds to its prompt, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import loracook.data as data
from loracook.data.read.rows import Chat, Message, Pair, Row, RowError
from loracook.data.tokenize import chat_mask, statistics, template
from loracook.data.tokenize.chat_mask import ChatRenderer
from loracook.data.tokenize.encode import MASKED, encode
from loracook.data.tokenize.probes import QUESTION
from loracook.data.tokenize.render import Rendered, Renderer
from tests.data.samples import chat, recipe, tokenizer

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


HERMES = """{%- for m in messages -%}{%- if m.role == 'tool' -%}
{{ '<tool_response>' + m.content + '</tool_response>' }}{%- if not loop.last -%}{{ '\n<|im_end|>' }}{%- endif -%}
{%- else -%}{{ '<|im_start|>' + m.role + '\n' + m.content }}
{%- for c in m.tool_calls or [] -%}{{ '<call>' + c.function.name + (c.function.arguments | tojson) + '</call>' }}
{%- endfor -%}{{ '<|im_end|>' }}{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""
"""Closes a tool result only once something follows it, as Hermes-2-Pro's template does."""


def renderer(chat_template: str, loss: str, folder: Path) -> Renderer:
    """A renderer of rows with a model's own template."""
    made = tokenizer(*dict.fromkeys(template.MARKER.findall(chat_template)), chat_template=chat_template)
    book = recipe(folder, dataset={"path": "./chat.jsonl"}, template={"loss": loss})
    return Renderer(book, data.with_template(book, made))


@pytest.mark.parametrize(("loss", "turns"), [("last_turn", None), ("all", 0)])
def test_no_part_of_a_tool_result_is_trained_for_an_answer(
    loss: str, turns: int | None, tmp_path: Path
) -> None:
    answer = chat("Soup?", "Leek.")["messages"][1]
    row = Chat((QUESTION, chat_mask.TOOL_CALL, chat_mask.TOOL_RESULT, answer))
    renders = renderer(HERMES, loss, tmp_path)
    if turns is None:
        with pytest.raises(RowError, match="cannot mask: the chat template rewrites earlier turns once an"):
            renders.render(row)
    else:  # nothing to mask, but nothing is asked either
        assert len(renders.render(row).turns) == turns


NEMO = """{%- for m in messages -%}{%- for c in m.tool_calls or [] -%}{%- if c.id is undefined or c.id|length != 9 -%}
{{ raise_exception('Tool call IDs should be strings with length 9!') }}{%- endif -%}
{{ c.function.name + (c.function.arguments | tojson) }}{%- endfor -%}{{ m.content }}{%- endfor -%}
{%- for t in tools or [] -%}{{ t | tojson }}{%- endfor -%}"""


def test_a_template_that_wants_ids_of_tool_calls_writes_them() -> None:
    made = ChatRenderer(tokenizer(chat_template=NEMO))
    assert (made.supports_tools, made.writes_tools) == (True, True)


def test_tools_that_a_template_does_not_write_are_refused(tmp_path: Path) -> None:
    silent = NEMO[: NEMO.index("{%- for t")]
    row = Chat(
        ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}), tools=(chat_mask.TOOL,)
    )
    with pytest.raises(RowError, match="tools: the chat template does not write them"):
        renderer(silent, "last_turn", tmp_path).render(row)


REASONS = "Is it 3?"
DROPS = """{%- for m in messages -%}{{ '<' + m.role + '>' + m.content.split('</think>')[-1] + eos_token }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<assistant>' }}{%- endif -%}"""
THOUGHT = f"<think>{REASONS}</think>4"


@pytest.mark.parametrize(
    ("row", "lost"),
    [
        (Pair("2+2?", THOUGHT), True),
        (Pair("2+2?", "4"), False),
        (Chat((QUESTION, {"role": "assistant", "content": THOUGHT})), True),
        (Chat((QUESTION, {"role": "assistant", "content": "4 is it", "reasoning_content": "4"})), True),
        (Chat((QUESTION, {"role": "assistant", "content": THOUGHT, "train": False}, *ANSWERS[:2])), False),
    ],
)
def test_reasoning_that_is_not_trained_is_noticed_wherever_it_stands(
    row: Row, lost: bool, tmp_path: Path
) -> None:
    loss = "last_turn" if isinstance(row, Pair) else "assistant"
    rendered = renderer(DROPS, loss, tmp_path).render(row)
    assert statistics.loses_reasoning(statistics._answers(row), rendered) is lost


@pytest.mark.parametrize("answer", ["ok \N{THUMBS UP SIGN}", "\N{POT OF FOOD}", "e\u0301"])
def test_all_tokens_of_the_last_character_are_trained(answer: str) -> None:
    marked = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}{% else %}{{ m.content + '>' }}{% endif %}{% endfor %}"
    made = tokenizer(chat_template=marked)
    text, spans = ChatRenderer(made).text_and_answers([QUESTION, {"role": "assistant", "content": answer}])
    (row,) = encode([Rendered(text, spans)], made)
    assert made.decode([label for label in row.labels.tolist() if label != MASKED]) == answer
