"""The template that trains is the one that generates and is saved; where none can mask, loracook says so."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

import loracook.data as data
from loracook.data.read.template_kwargs import RESERVED
from loracook.data.tokenize import template
from loracook.data.tokenize.chat_mask import ChatRenderer
from loracook.errors import RecipeError, dotted
from loracook.progress import Silent
from tests.data.samples import chat, json_lines, marked, recipe, tokenizer

UNMARKED = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
)
MARKED = """{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ '[/INST]' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}
{%- else -%}{{ '[INST] ' + message['content'] }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[/INST]' }}{%- endif -%}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    json_lines(tmp_path / "chat.jsonl", [chat("Soup?", "Leek.", "More?", "No.")] * 2)
    return tmp_path


def refusal(folder: Path, made: Any, **sections: Any) -> str:
    book = recipe(folder, **({"dataset": {"path": "./chat.jsonl"}} | sections))
    with pytest.raises(RecipeError) as caught:
        data.prepare(book, data.with_template(book, made), folder / "cache", progress=Silent())
    problem = caught.value.problems[0]
    return f"{dotted(problem.path)}: {problem.message}"


def first(folder: Path, made: Any, **sections: Any) -> str:
    book = recipe(folder, **({"dataset": {"path": "./chat.jsonl"}} | sections))
    row = data.prepare(book, data.with_template(book, made), folder / "cache", progress=Silent()).train[0]
    return marked(row["input_ids"], row["labels"], made)


def test_a_file_is_a_template(folder: Path) -> None:
    (folder / "inst.jinja").write_text(MARKED)
    written = first(folder, tokenizer(), template={"chat_template": "./inst.jinja", "loss": "assistant"})
    assert written == "[INST] Soup?[/INST]⟦ Leek.</s>⟧[INST] More?[/INST]⟦ No.</s>⟧"


def test_trl_s_training_variant_stands_in_for_a_known_template(folder: Path) -> None:
    own = (template._trl_templates() / "qwen2_5.jinja").read_text()
    made = tokenizer("<|im_start|>", "<|im_end|>", chat_template=own)
    book = recipe(folder, dataset={"path": "./chat.jsonl"})
    assert "generation" in data.with_template(book, made).chat_template


def test_the_last_answer_can_be_trained_without_marks(folder: Path) -> None:
    made = tokenizer(chat_template=UNMARKED + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")
    written = first(folder, made, template={"loss": "last_turn"})
    assert written == "user: Soup?</s>assistant: Leek.</s>user: More?</s>assistant: ⟦No.</s>⟧"


def test_answers_are_trained_without_marks(folder: Path) -> None:
    made = tokenizer(chat_template=UNMARKED + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")
    written = "user: Soup?</s>assistant: ⟦Leek.</s>⟧user: More?</s>assistant: ⟦No.</s>⟧"
    assert first(folder, made) == written
    assert first(folder, made, template={"loss": "assistant"}) == written


def test_a_template_that_rewrites_earlier_turns_cannot_mask_them(folder: Path) -> None:
    reworded = UNMARKED.replace("+ eos", "+ ('!' if loop.last else '') + eos")
    said = refusal(folder, tokenizer(chat_template=reworded), template={"loss": "assistant"})
    assert said == (
        "template: row 1 of chat.jsonl: cannot mask: the chat template rewrites earlier turns; write "
        "chat_template: chatml, a .jinja file with {% generation %}, or loss: last_turn"
    )


def test_chats_need_a_template(folder: Path) -> None:
    message = "the rows are chats, which require a chat template; set chatml, plain or a .jinja file"
    assert refusal(folder, tokenizer()) == f"template.chat_template: {message}"


def test_an_assistant_loss_does_not_fit_plain_text(folder: Path) -> None:
    json_lines(folder / "chat.jsonl", [{"text": "Leek."}])
    message = (
        "template.loss: assistant requires chats or prompts with completions, but the rows are plain text"
    )
    assert refusal(folder, tokenizer(), template={"loss": "assistant"}) == message


def test_a_missing_template_is_reported(folder: Path) -> None:
    assert refusal(folder, tokenizer(), template={"chat_template": "./no.jinja"}) == (
        "template.chat_template: no such file './no.jinja'"
    )
    named = refusal(folder, tokenizer(), template={"chat_template": "qwen9"})
    assert named.startswith("template.chat_template: no template named 'qwen9'; use one of chatml, plain")


def test_a_template_that_cannot_be_compiled_is_refused(folder: Path) -> None:
    (folder / "bad.jinja").write_text("{% for %}")
    said = refusal(folder, tokenizer(), template={"chat_template": "./bad.jinja", "loss": "last_turn"})
    assert said.startswith("template.chat_template: cannot render './bad.jinja': ")


ATTACKS = {
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{% set n = namespace(x='a') %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "output": "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_template_is_stopped_in_a_process_of_its_own(attack: str, folder: Path) -> None:
    (folder / "bad.jinja").write_text(ATTACKS[attack])
    said = refusal(folder, tokenizer(), template={"chat_template": "./bad.jinja", "loss": "last_turn"})
    assert said.startswith("template.chat_template: cannot render './bad.jinja': ")


@pytest.mark.parametrize("attack", ["time", "memory", "output"])
def test_a_model_s_own_hostile_template_is_stopped_too(attack: str, folder: Path) -> None:
    said = refusal(folder, tokenizer(chat_template=ATTACKS[attack]))
    assert said.startswith("template.chat_template: cannot render the model's own chat template: ")


CALLS = [
    {"type": "function", "function": {"name": "get", "arguments": {"city": city}}}
    for city in ("Oslo", "Rome")
]
ASKED = {"role": "user", "content": "Weather?"}
READ = {"role": "tool", "name": "get", "content": "rain"}


def test_what_an_answer_makes_a_template_rewrite_is_never_trained(folder: Path) -> None:
    called = {"role": "assistant", "content": "", "reasoning_content": "Look.", "tool_calls": CALLS[:1]}
    answer = {"role": "assistant", "content": "Rain.", "reasoning_content": "Good."}
    json_lines(folder / "chat.jsonl", [{"messages": [ASKED, called, READ, answer]}])
    sections = {"template": {"chat_template": "gptoss", "loss": "last_turn"}}
    book = recipe(folder, dataset={"path": "./chat.jsonl"}, **sections)
    with pytest.raises(RecipeError, match="cannot mask: the chat template rewrites earlier turns once an"):
        data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())


def test_parallel_tool_calls_that_a_template_drops_are_refused(folder: Path) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": CALLS}
    json_lines(folder / "chat.jsonl", [{"messages": [ASKED, called, READ, READ | {"content": "sun"}]}])
    book = recipe(folder, dataset={"path": "./chat.jsonl"}, template={"chat_template": "gptoss"})
    with pytest.raises(RecipeError, match="dropped by the chat template: the template writes one tool call"):
        data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())


def test_messages_with_train_false_are_masked(folder: Path) -> None:
    row = chat("Soup?", "Leek.", "More?", "No.")
    row["messages"][1]["train"] = False
    json_lines(folder / "chat.jsonl", [row])
    written = first(folder, tokenizer(), template={"chat_template": "plain"})
    assert written == "User: Soup?\nAssistant: Leek.</s>\nUser: More?\nAssistant:⟦ No.</s>⟧\n"
    said = refusal(folder, tokenizer(), template={"chat_template": "plain", "loss": "all"})
    assert "messages with train: false require loss: assistant, not all" in said


def test_the_saved_tokenizer_writes_what_was_trained(folder: Path) -> None:
    book = recipe(folder, dataset={"path": "./chat.jsonl"}, template={"chat_template": "chatml"})
    made = data.with_template(book, tokenizer())
    made.save_pretrained(folder / "saved")
    again = AutoTokenizer.from_pretrained(folder / "saved")
    prepared = data.prepare(book, made, folder / "cache", progress=Silent())
    assert data.prepare(book, again, folder / "cache", progress=Silent()).digest == prepared.digest
    assert data.with_template(book, again).chat_template == made.chat_template
    assert len(again) == len(made)


def test_a_template_that_drops_a_message_is_refused(folder: Path) -> None:
    silent = "{% for m in messages %}{% generation %}{{ m.text }}</s>{% endgeneration %}{% endfor %}"
    (folder / "silent.jinja").write_text(silent, encoding="utf-8")
    book = recipe(folder, dataset={"path": "./chat.jsonl"}, template={"chat_template": "./silent.jinja"})
    with pytest.raises(RecipeError, match="dropped by the chat template: the user message"):
        data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())


def test_turn_flags_are_never_ignored(folder: Path) -> None:
    turns = [{"role": "assistant", "content": "Leek.", "train": False}, {"role": "user", "content": "Sure?"}]
    row = {
        "prompt": [{"role": "user", "content": "Which soup?"}],
        "completion": [*turns, {"role": "assistant", "content": "Potato."}],
    }
    json_lines(folder / "a.jsonl", [row])
    book = recipe(folder, dataset={"path": "./a.jsonl"}, template={"chat_template": "plain"})
    with pytest.raises(RecipeError, match="require loss: assistant, not completion"):
        data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())


def test_reasoning_that_a_template_does_not_write_is_noted(folder: Path) -> None:
    turns = chat("Which soup?", "Leek.")["messages"]
    turns[1]["reasoning_content"] = "It is winter."
    json_lines(folder / "a.jsonl", [{"messages": turns}])
    book = recipe(folder, dataset={"path": "./a.jsonl"}, template={"chat_template": "plain"})
    found = data.prepare(book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent())
    assert found.notes[-1] == (
        "1 training rows have reasoning that the chat template drops; try template.loss: assistant"
    )


OWN_KWARGS = (
    "{% if note is defined %}{{ note }}: {% endif %}{% for m in messages %}{{ m.role[0] }} "
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }} {% endif %}{% endfor %}{% if add_generation_prompt %}a {% endif %}"
)


@pytest.mark.parametrize("loss", ["assistant", "last_turn", "all"])
def test_a_row_s_own_arguments_reach_the_template(folder: Path, loss: str) -> None:
    json_lines(
        folder / "chat.jsonl",
        [chat("Soup?", "Leek.") | {"chat_template_kwargs": {"note": "Hm"}}, chat("b?", "c")],
    )
    (folder / "own.jinja").write_text(OWN_KWARGS)
    sections = {"template": {"chat_template": "./own.jinja", "loss": loss, "system": "S"}}
    book = recipe(folder, dataset={"path": "./chat.jsonl", "shuffle": False}, **sections)
    rows = data.prepare(
        book, data.with_template(book, tokenizer()), folder / "cache", progress=Silent()
    ).train
    texts = [
        marked(row["input_ids"], row["labels"], tokenizer()).translate({ord(c): None for c in "⟦⟧"})
        for row in rows
    ]
    assert texts == ["Hm: s S u Soup? a Leek.</s>", "s S u b? a c</s>"]


def test_what_loracook_itself_gives_to_a_template_is_no_row_s_to_set() -> None:
    call, render = PreTrainedTokenizerBase.apply_chat_template, render_jinja_template
    own = {name for given in (call, render) for name in inspect.signature(given).parameters} - {
        "self",
        "documents",
    }
    assert own <= RESERVED
    assert {f"{name}_token" for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask")} <= RESERVED


CALLING = (
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} WRITTEN</call>{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize(
    "written",
    ["{{ c.function.arguments }}", "{{ '' + c.function.arguments }}", "{{ c.function.arguments | tojson }}"],
)
def test_arguments_are_written_as_json_whichever_form_the_template_takes(written: str) -> None:
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"city": "Åre", "n": None}}}]
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    made = tokenizer(chat_template=CALLING.replace("WRITTEN", written))
    assert ChatRenderer(made).text(turns) == '?<call>f {"city": "Åre", "n": null}</call>'


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("gptoss", ["<|call|>"]),
        ("glm4moe", ["<|observation|>"]),
        ("deepseekv3", ["<\uff5ctool▁calls▁begin\uff5c>", "<\uff5ctool▁output▁end\uff5c>"]),
        ("lfm2", ["<|tool_list_start|>", "<|tool_response_end|>"]),
    ],
)
def test_tokens_that_only_tools_bring_are_added_with_a_named_template(
    name: str, tokens: list[str], folder: Path
) -> None:
    book = recipe(folder, dataset={"path": "./chat.jsonl"}, template={"chat_template": name})
    made = data.with_template(book, tokenizer())
    assert set(tokens) <= made.get_added_vocab().keys()
    assert all(len(made.encode(token, add_special_tokens=False)) == 1 for token in tokens)


def test_the_end_token_pads_where_there_is_no_padding_token(folder: Path) -> None:
    made, book = tokenizer(), recipe(folder, dataset={"path": "./chat.jsonl"})
    made.pad_token = None
    assert data.with_template(book, made).pad_token == "</s>"


def test_a_tokenizer_without_end_and_padding_is_refused_with_the_line_to_write(folder: Path) -> None:
    made, book = tokenizer(), recipe(folder, dataset={"path": "./chat.jsonl"})
    made.pad_token = made.eos_token = None
    with pytest.raises(RecipeError) as caught:
        data.with_template(book, made)
    [problem] = caught.value.problems
    assert dotted(problem.path) == "tokenizer.eos_token"
    assert problem.message.endswith("write tokenizer: {eos_token: '</s>'}")
    named = recipe(folder, dataset={"path": "./chat.jsonl"}, template={"chat_template": "chatml"})
    assert data.with_template(named, made).pad_token == "<|im_end|>"


def test_of_several_named_templates_the_default_one_is_used(folder: Path) -> None:
    answering = UNMARKED + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    made = tokenizer(chat_template={"default": answering, "rag": "{{ 'no' }}"})
    assert first(folder, made) == "user: Soup?</s>assistant: ⟦Leek.</s>⟧user: More?</s>assistant: ⟦No.</s>⟧"
