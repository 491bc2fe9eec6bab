"""What evaluation asks and expects of a row is, token for token, what training trains in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig, PreTrainedTokenizerFast

import loracook.data as data
from loracook.data.eval_prompts import Asker
from loracook.data.read.formats import ReadOptions, rows
from loracook.data.read.rows import Chat, Message, Pair, Row, RowError
from loracook.data.tokenize.batches import truncate
from loracook.data.tokenize.encode import MASKED, encode
from loracook.data.tokenize.render import Renderer
from loracook.data.tokenize.template import names
from loracook.evaluation.answers import comparison
from loracook.evaluation.measure import Evaluation
from loracook.evaluation.metrics import final_answer, metric, opened_reasoning
from loracook.progress import Silent
from tests.data.samples import json_lines, recipe, tokenizer
from tests.data.tokenize.test_golden import ASK, CHATS

METRICS = ("exact_match", "contains")
ADDS = {"nothing": "$A", "BOS": "<s> $A", "EOS": "$A </s>", "both": "<s> $A </s>"}
"""What a tokenizer puts around every text by itself."""
WITHOUT_TEXT = {"idefics3", "llava_next", "smolvlm"}
"""Templates of vision models that write no content but lists of parts: rows are refused by name."""
FAMILIES = [name for name in names() if name not in WITHOUT_TEXT]
UNMARKED = {name for name in FAMILIES if name.startswith("gemma4")} | {"llama3_1", "llama3_2"}
"""Templates that do not mark what the assistant writes, and have no training variant that does."""
CUT_BETWEEN_LINES = {"llama3", "qwen3_5_nothink"}
"""Templates with two line breaks before the answer: the tokenizer of these tests joins them at the end of a text."""
QUICK = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.sampled_from(" \n1{}<>:"),
    min_size=1,
    max_size=20,
).filter(str.strip)


def made(adds: str, **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of that kind."""
    kind = tokenizer(bos="<s>", **options)
    special = [(token, kind.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    kind.backend_tokenizer.post_processor = TemplateProcessing(single=ADDS[adds], special_tokens=special)
    return kind


@cache
def asker(adds: str, max_length: int = 8192, max_new_tokens: int = 2000, **template: str) -> Asker:
    """An asker for such a tokenizer and template section."""
    with tempfile.TemporaryDirectory() as folder:
        book = recipe(
            Path(folder),
            dataset={"path": "./chat.jsonl", "eval": {"path": "./eval.jsonl"}},
            template=template,
            train={"max_length": max_length},
            evaluate={"rows": 4, "generation": {"max_new_tokens": max_new_tokens}},
        )
        return Asker(book, data.with_template(book, made(adds)))


@dataclass
class PerfectModel:
    """Stands in for a model that has learned token rows by heart: it goes on as they do, up to an end."""

    rows: Sequence[Sequence[int]]
    generation_config = SimpleNamespace(eos_token_id=None)
    device = "cpu"

    def generate(self, input_ids: Any, attention_mask: Any, generation_config: GenerationConfig) -> Any:
        """The prompts and their answers, padded as transformers pads them."""
        prompts = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        answers = [list(self.answer(prompt, generation_config)) for prompt in prompts]
        longest = max(map(len, answers))
        pad = [generation_config.pad_token_id]
        padded = [answer + pad * (longest - len(answer)) for answer in answers]
        return torch.cat([input_ids, torch.tensor(padded, dtype=torch.long)], dim=1)

    def answer(self, prompt: list[int], config: GenerationConfig) -> Iterator[int]:
        """What follows the prompt in a row, then nonsense to the limit, as from a model never told to stop."""
        (row,) = {tuple(row) for row in self.rows if list(row[: len(prompt)]) == prompt}
        for token, _ in zip([*row[len(prompt) :], *[0] * 9], range(config.max_new_tokens), strict=False):
            yield token
            if token in config.eos_token_id:
                return


class NotSupportedError(Exception):
    """A template refuses system messages or tools."""


def token_row(asks: Asker, row: Row) -> tuple[list[int], list[int]]:
    """The ids and labels of a row as training gets them; raises NotSupportedError."""
    try:
        rendered = Renderer(asks.recipe, asks.tokenizer).render(row)
    except RowError as error:
        raise NotSupportedError from error
    encoded = encode([rendered], asks.tokenizer)[0]
    truncated = truncate(encoded, asks.recipe["train"]["max_length"])
    assert truncated
    return truncated.ids.tolist(), truncated.labels.tolist()


def start_of_last_run(labels: Sequence[int]) -> int:
    """Where the last run of trained tokens starts."""
    trained = [label != MASKED for label in labels]
    last = len(trained) - 1 - trained[::-1].index(True)
    return next((i for i in range(last, -1, -1) if not trained[i]), -1) + 1


def answered(
    asks: Asker, prompts: Sequence[Any], token_rows: Sequence[Sequence[int]]
) -> list[Mapping[str, Any]]:
    """How evaluation compares the answers of a perfect model."""
    model: Any = PerfectModel(token_rows)
    answers = Evaluation(asks.recipe, model, asks.tokenizer, Silent()).answers(prompts, "adapter")
    measures = {name: metric(name) for name in METRICS}
    return [
        comparison(asks.tokenizer, prompt, {"base": answer, "adapter": answer}, metrics=measures)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def check(asks: Asker, row: Row) -> None:
    """Hold what is asked for a row against its token row, and let a perfect model answer."""
    ids, labels = token_row(asks, row)
    prompts = list(asks.of_rows(iter([row])))
    assert [prompt.prompt_ids for prompt in prompts] == [ids[: start_of_last_run(labels)]]
    (line,) = answered(asks, prompts, [ids])
    assert line["adapter"] == prompts[0].reference
    assert {score for both in line["scores"].values() for score in both.values()} <= {1.0}


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """One to three questions and answers, some with a system message or reasoning."""
    messages = [{"role": "system", "content": draw(TEXTS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        reasoning = {"reasoning_content": draw(TEXTS)} if draw(st.booleans()) else {}
        messages += [
            {"role": "user", "content": draw(TEXTS)},
            {"role": "assistant", "content": draw(TEXTS), **reasoning},
        ]
    return Chat(tuple(messages))


LOSSES = [(family, "last_turn") for family in FAMILIES]
LOSSES += [(family, "assistant") for family in FAMILIES if family not in UNMARKED]


@pytest.mark.parametrize(("family", "loss"), LOSSES)
def test_a_chat_is_asked_as_it_is_trained(family: str, loss: str) -> None:
    asks = asker("both", chat_template=family, loss=loss)
    question, call, *rest = CHATS["tools"]["messages"]
    told = {**call, "content": "I cook."}
    for messages in ([question, call, *rest], [question, call], [question, told, *rest], [question, told]):
        columns = {**CHATS["tools"], "messages": messages}
        (with_tools,) = rows(columns, ReadOptions("messages"))
        with suppress(NotSupportedError):
            check(asks, with_tools)

    @QUICK
    @given(chats())
    def on_random_chats(row: Chat) -> None:
        with suppress(NotSupportedError):
            check(asks, row)

    on_random_chats()


@pytest.mark.parametrize(("family", "loss"), LOSSES)
def test_metrics_find_the_answer_after_the_reasoning_that_the_template_writes(family: str, loss: str) -> None:
    asks = asker("both", chat_template=family, loss=loss)
    for reasoning in ({}, {"reasoning_content": "Is it 3?"}):
        (prompt,) = asks.of_rows(
            iter([Chat((ASK, {"role": "assistant", "content": "4 leeks", **reasoning}))])
        )
        before = opened_reasoning(asks.tokenizer.decode(prompt.prompt_ids))
        assert final_answer(before + str(prompt.reference)) == "4 leeks"


PAIRS = st.tuples(TEXTS, TEXTS).map(lambda texts: Pair(*texts))


@pytest.mark.parametrize("loss", ["completion", "all"])
@pytest.mark.parametrize("adds", ADDS)
def test_a_plain_pair_is_asked_as_it_is_trained(adds: str, loss: str) -> None:
    trained = asker(adds, chat_template="none")
    asks = asker(adds, chat_template="none", loss=loss)

    @QUICK
    @given(PAIRS)
    def on_random_pairs(row: Pair) -> None:
        ids, labels = token_row(trained, row)
        prompts = list(asks.of_rows(iter([row])))
        start = start_of_last_run(labels)
        assert [prompt.prompt_ids for prompt in prompts] == ([ids[:start]] if start else [])
        assert ids.count(asks.tokenizer.eos_token_id) == 1
        assert ids.count(asks.tokenizer.bos_token_id) == ("BOS" in adds or adds == "both")
        for line in answered(asks, prompts, [ids]):
            assert {score for both in line["scores"].values() for score in both.values()} <= {1.0}

    on_random_pairs()


@pytest.mark.parametrize("adds", ADDS)
@pytest.mark.parametrize(
    "row",
    [
        Pair("Q: soup?\nA:", " leek"),
        Pair("Q: soup?\nA: ", "leek"),
        Pair("<s>Q: soup?\nA:", " leek</s>"),
        Pair("Q: soup. A\n", "leek"),
    ],
)
def test_the_recipes_own_prompt_ends_where_training_starts_to_train(adds: str, row: Pair) -> None:
    asks = asker(adds, chat_template="none")
    (prompt,) = asks.of_rows(iter([row]))
    assert data.prompt_ids(asks.recipe, asks.tokenizer, row.prompt) == prompt.prompt_ids
    assert "</s>" not in asks.tokenizer.decode(prompt.prompt_ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chat_with_the_recipes_own_prompt_starts_as_a_trained_one(family: str) -> None:
    asks = asker("both", chat_template=family, loss="last_turn" if family in UNMARKED else "assistant")
    (prompt,) = asks.of_rows(
        iter([Chat(({"role": "user", "content": "Soup?"}, {"role": "assistant", "content": "Leek."}))])
    )
    assert data.prompt_ids(asks.recipe, asks.tokenizer, "Soup?") == prompt.prompt_ids


def usage_ids(asks: Asker, prompt: str, exact: str | None) -> list[int]:
    """What the code on a card asks with."""
    made = asks.tokenizer
    if exact is not None:
        return list(made(exact, add_special_tokens=False)["input_ids"])
    if not made.chat_template:
        return list(made(prompt)["input_ids"])
    messages = [{"role": "user", "content": prompt}]
    return list(made.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])


@pytest.mark.parametrize("prompt", ["Q: soup?\nA:", "Q: soup?\nA: ", "<s>Q: soup?", "Q: soup. A\n"])
@pytest.mark.parametrize("adds", ADDS)
def test_the_code_on_a_card_asks_for_text_as_training_does(adds: str, prompt: str) -> None:
    asks = asker(adds, chat_template="none")
    exact = data.exact_text(asks.recipe, asks.tokenizer, prompt)
    assert usage_ids(asks, prompt, exact) == data.prompt_ids(asks.recipe, asks.tokenizer, prompt)
    if prompt == "Q: soup?\nA:":
        assert exact == (
            f"{asks.tokenizer.bos_token}{prompt}" if adds == "both" else None if adds != "EOS" else prompt
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_code_on_a_card_asks_a_chat_as_training_does(family: str) -> None:
    asks = asker("both", chat_template=family, loss="last_turn" if family in UNMARKED else "assistant")
    exact = data.exact_text(asks.recipe, asks.tokenizer, "Soup?")
    same = usage_ids(asks, "Soup?", exact) == data.prompt_ids(asks.recipe, asks.tokenizer, "Soup?")
    assert same != (family in CUT_BETWEEN_LINES)
    if family == "deepseek_r1_distill":  # whose generation prompt opens reasoning that no row of ours has
        assert exact == "<s><\uff5cUser\uff5c>Soup?<\uff5cAssistant\uff5c>"


TWO_ANSWERS: tuple[Message, ...] = (
    {"role": "user", "content": "Soup?"},
    {"role": "assistant", "content": "Leek."},
    {"role": "user", "content": "More?"},
    {"role": "assistant", "content": "No 1."},
)


def test_the_last_answer_that_is_trained_is_asked_for() -> None:
    unflagged = Chat((*TWO_ANSWERS[:3], {**TWO_ANSWERS[3], "train": False}))
    both = "Soup?<|im_end|>\n<|im_start|>assistant\nLeek.<|im_end|>\n<|im_start|>user\nMore?"
    found = {
        "train: false": asked("assistant", unflagged),
        **{loss: asked(loss, Chat(TWO_ANSWERS)) for loss in ("assistant", "last_turn", "all")},
        "completion": asked("completion", Chat(TWO_ANSWERS, prompt_length=1)),
        "cut": asked("assistant", Chat(TWO_ANSWERS), max_length=30),
        "nothing asked": asked("assistant", Chat(TWO_ANSWERS[1:2])),
    }
    trained_last = ("assistant", "last_turn", "all", "completion")
    start, header = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    assert found == {
        "train: false": [(f"{start}Soup?{header}", "Leek.")],
        **{loss: [(f"{start}{both}{header}", "No 1.")] for loss in trained_last},
        "cut": [(f"{start}Soup?{header}", "Leek.")],
        "nothing asked": [],
    }


def test_a_row_cut_by_max_length_is_asked_no_further_than_training_saw() -> None:
    asks = asker("both", chat_template="none", max_length=12)
    row = Pair("Q: soup? A:", " leek and potato, leek and potato")
    _, labels = token_row(asks, row)
    (prompt,) = asks.of_rows(iter([row]))
    trained = [label for label in labels if label != MASKED]
    assert (prompt.limit, prompt.reference) == (len(trained), asks.tokenizer.decode(trained))
    check(asks, row)


def test_a_stop_within_an_answer_ends_the_reference_as_it_ends_the_answer() -> None:
    assert asked(
        "assistant", Chat((TWO_ANSWERS[0], {"role": "assistant", "content": "Leek<|im_end|> and"}))
    ) == [("<|im_start|>user\nSoup?<|im_end|>\n<|im_start|>assistant\n", "Leek")]


def test_an_end_that_both_an_answer_and_the_template_bring_stands_once() -> None:
    asks = asker("both", chat_template="chatml", loss="assistant")
    ended = Chat((TWO_ANSWERS[0], {"role": "assistant", "content": "Leek.<|im_end|>\n"}))
    assert token_row(asks, ended) == token_row(asks, Chat(TWO_ANSWERS[:2]))


def test_the_reference_of_a_tool_call_is_what_the_template_writes() -> None:
    asks = asker("nothing", chat_template="qwen3")
    call = {**CHATS["tools"], "messages": CHATS["tools"]["messages"][:2]}
    (row,) = rows(call, ReadOptions("messages"))
    (prompt,) = asks.of_rows(iter([row]))
    written = '{"name": "cook", "arguments": {"soup": "leek"}}'
    assert prompt.reference == f"<think>\n\n</think>\n\n<tool_call>\n{written}\n</tool_call>"


def test_special_tokens_stand_once_and_are_named(tmp_path: Path) -> None:
    texts = ["plain", "<s>soup</s>", "<s><s>soup</s></s>\n", "a </s> b"]
    json_lines(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    book = recipe(tmp_path, dataset={"path": "./rows.jsonl", "shuffle": False})
    shown, notes = {}, {}
    for adds in ADDS:
        kind = made(adds)
        found = data.prepare(book, data.with_template(book, kind), tmp_path / adds, progress=Silent())
        shown[adds] = [kind.decode(row["input_ids"]) for row in found.train]
        notes[adds] = [note for note in found.notes if "'<" in note]
    before = {"nothing": "", "BOS": "<s>", "EOS": "", "both": "<s>"}
    own = {"nothing": "<s>", "BOS": "<s>", "EOS": "<s>", "both": "<s>"}
    twice = {"nothing": "<s><s>", "BOS": "<s>", "EOS": "<s><s>", "both": "<s>"}
    assert shown == {
        adds: [f"{bos}plain</s>", f"{own[adds]}soup</s>", f"{twice[adds]}soup</s>", f"{bos}a </s> b</s>"]
        for adds, bos in before.items()
    }
    assert [len(each) for each in notes.values()] == [3, 3, 3, 3]


def asked(loss: str, row: Row, **options: int) -> list[tuple[str, str | None]]:
    """What is asked for a row in chatml, as text, and the reference."""
    asks = asker("both", chat_template="chatml", loss=loss, **options)
    prompts = asks.of_rows(iter([row]))
    return [(asks.tokenizer.decode(prompt.prompt_ids), prompt.reference) for prompt in prompts]


@pytest.mark.parametrize(("longest", "cut"), [(3, ["base", "adapter"]), (400, [])])
def test_an_answer_that_max_new_tokens_cuts_is_named(longest: int, cut: list[str]) -> None:
    asks = asker("both", chat_template="chatml", loss="assistant", max_new_tokens=longest)
    row = Chat(TWO_ANSWERS)
    prompts = list(asks.of_rows(iter([row])))
    (line,) = answered(asks, prompts, [token_row(asks, row)[0]])
    assert (line["cut"], line["adapter"]) == (cut, "No " if cut else "No 1.")
