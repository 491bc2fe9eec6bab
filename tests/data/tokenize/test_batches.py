"""How much is tokenized at once is bounded by its characters, whatever the number of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import loracook.data as data
from loracook.data.read.rows import Chat, Pair, RowError, Text
from loracook.data.read.selection import select
from loracook.data.tokenize.batches import RowEncoder
from loracook.data.tokenize.render import Renderer
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe
from tests.data.samples import chat, json_lines, recipe, tokenizer


class Counting(PreTrainedTokenizerFast):  # type: ignore[misc]
    """A tokenizer that notes how many characters it gets at once."""

    def __call__(self, text: Any, **options: Any) -> Any:
        self.init_kwargs.setdefault("calls", []).append(sum(map(len, text)))
        return super().__call__(text, **options)

    @property
    def calls(self) -> list[int]:
        """The characters of each call but those that ask for special tokens."""
        return [count for count in self.init_kwargs.get("calls", []) if count > 100]


def book_of(folder: Path, rows: list[dict[str, Any]], **sections: Any) -> Recipe:
    json_lines(folder / "a.jsonl", rows)
    return recipe(folder, dataset={"path": "./a.jsonl", "shuffle": False}, **sections)


def counting(book: Recipe) -> Counting:
    return data.with_template(
        book, Counting(tokenizer_object=tokenizer().backend_tokenizer, eos_token="</s>")
    )


def test_rows_are_tokenized_some_characters_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = book_of(tmp_path, [{"text": f"{number} leek " * 100} for number in range(10)])
    whole, cut = counting(book), counting(book)
    encoders = [RowEncoder(book, made, select(book, Silent()), Silent(), "training") for made in (whole, cut)]
    expected = [row.ids.tolist() for row in encoders[0].stream(encoders[0].selection.train())]
    monkeypatch.setattr("loracook.data.tokenize.batches.MAX_CHARACTERS", 2500)
    assert [row.ids.tolist() for row in encoders[1].stream(encoders[1].selection.train())] == expected
    assert (len(whole.calls), len(cut.calls)) == (1, 4)
    assert max(cut.calls) <= 2500


def test_rows_are_held_some_characters_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = book_of(tmp_path, [{"text": f"{number} leek " * 100} for number in range(10)])
    made = counting(book)
    encoder = RowEncoder(book, made, select(book, Silent()), Silent(), "training")
    monkeypatch.setattr("loracook.data.tokenize.batches.BATCH_CHARACTERS", 1500)
    read = 0

    def rows() -> Any:
        nonlocal read
        for located in encoder.selection.train():
            read += 1
            yield located

    next(encoder.stream(rows()))
    assert read == 3  # two rows and the one that is too much


def test_a_template_that_makes_too_much_of_a_row_is_refused_for_that_row(tmp_path: Path) -> None:
    (tmp_path / "much.jinja").write_text("{% for m in messages %}{{ m.content * 12 }}{% endfor %}")
    book = book_of(
        tmp_path, [chat("a", "b")], template={"chat_template": "./much.jinja", "loss": "completion"}
    )
    renderer = Renderer(book, data.with_template(book, tokenizer()))
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 800_000}]
    with pytest.raises(RowError, match=r"^too long: 9,600,\d{3} characters to tokenize; split it"):
        renderer.render(Chat(tuple(messages)))


def test_the_texts_before_many_trained_turns_count_together(tmp_path: Path) -> None:
    book = book_of(tmp_path, [chat("a", "b")], template={"chat_template": "chatml", "loss": "completion"})
    renderer = Renderer(book, data.with_template(book, tokenizer()))
    opening = {"role": "user", "content": "a" * 1_000_000}
    turns = [{"role": role, "content": "b"} for _ in range(9) for role in ("assistant", "user")]
    with pytest.raises(RowError, match=r"^too long: 9,00\d,\d{3} characters to tokenize; split it"):
        renderer.render(Chat((opening, *turns), prompt_length=1))


def test_a_long_document_and_a_long_pair_are_rows(tmp_path: Path) -> None:
    book = book_of(tmp_path, [{"text": "a"}])
    renderer, text = Renderer(book, data.with_template(book, tokenizer())), "a" * 5_000_000
    assert renderer.render(Text(text)).text.startswith(text)
    assert renderer.render(Pair(text, "b")).prompt == text


@pytest.mark.parametrize("row", [Text("leek \ud800"), Pair("leek", "\ud800"), Chat(({"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "leek"}))], ids=lambda row: type(row).__name__)  # fmt: skip
def test_a_lone_surrogate_is_no_text_wherever_it_comes_from(row: Any, tmp_path: Path) -> None:
    book = book_of(tmp_path, [chat("a", "b")], template={"chat_template": "chatml"})
    with pytest.raises(RowError, match="a lone surrogate"):
        Renderer(book, data.with_template(book, tokenizer())).render(row)


def test_arguments_nested_too_deeply_are_refused_for_their_row(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": deep}}}
    messages = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": "k"},
    )
    book = book_of(tmp_path, [chat("a", "b")], template={"chat_template": "qwen3"})
    with pytest.raises(RowError, match="nested too deeply"):
        Renderer(book, data.with_template(book, tokenizer())).render(Chat(messages))
