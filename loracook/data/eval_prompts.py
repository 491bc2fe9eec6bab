"""Prompts to generate answers for: those of evaluation rows, with their answers, and the recipe's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from loracook.data.read.rows import Chat, Message, Pair, Row, RowError
from loracook.data.read.selection import evaluation_rows
from loracook.data.tokenize.batches import truncate
from loracook.data.tokenize.chat_mask import ChatRenderer
from loracook.data.tokenize.encode import MASKED, Encoded, encode
from loracook.data.tokenize.probes import ANSWER
from loracook.data.tokenize.render import Renderer, as_chat, trained_answers
from loracook.errors import RecipeError
from loracook.model.inference import up_to_end
from loracook.model.own_tokenizer import tokenized
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Turn:
    """A trained turn of a row: its place among the row's trained turns, counted from the last (-1) back, the
    token ids before it, and those trained in it.
    """

    place: int
    prompt_ids: list[int]
    trained_ids: list[int]


@dataclass(frozen=True)
class EvaluationPrompt:
    """A prompt (messages or text) with its token ids: those that training conditions the answer on.

    `reference` is the text that is trained there, up to its end, None for a prompt of the recipe. An answer
    counts up to `limit` tokens where the trained text has no end: training taught nothing beyond.
    """

    prompt: list[Message] | str
    prompt_ids: list[int]
    reference: str | None = None
    limit: int | None = None


def evaluation_prompts(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: int
) -> list[EvaluationPrompt]:
    """The prompts of the first `rows` evaluation rows that have one; raises RecipeError if none does."""
    candidates = Asker(recipe, tokenizer).of_rows(row.row for row in evaluation_rows(recipe, Silent()))
    prompts = list(itertools.islice(candidates, rows))
    if not prompts:
        message = "no evaluation row has a prompt; set dataset.eval to rows with questions and answers"
        raise RecipeError([recipe.problem(("evaluate", "rows"), message)])
    return prompts


def all_prompts(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[EvaluationPrompt]:
    """The prompts to evaluate: those of evaluation rows, then the recipe's own."""
    section = recipe["evaluate"]
    rows = evaluation_prompts(recipe, tokenizer, section["rows"]) if section.get("rows") else []
    own = section.get("prompts", [])
    return [*rows, *(EvaluationPrompt(text, prompt_ids(recipe, tokenizer, text)) for text in own)]


def prompt_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a user's prompt, up to where training would start to train the answer to it."""
    try:
        turn = Asker(recipe, tokenizer).to_user(text)
    except RowError as error:
        raise RecipeError([recipe.problem(("template",), str(error))]) from error
    if turn is None:
        message = f"no token comes before the answer to {text!r}; write a longer prompt"
        raise RecipeError([recipe.problem(("evaluate", "prompts"), message)])
    return turn.prompt_ids


def exact_text(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str | None:
    """A user's prompt as training conditions on it, special tokens included, where the usual call differs.

    None where the tokenizer's chat template, or the tokenizer alone without one, gives the same ids, and
    where no text does.
    """
    with suppress(RowError):  # a template may refuse it; then training has no answer to it either
        if turn := Asker(recipe, tokenizer).to_user(prompt):
            text = tokenizer.decode(turn.prompt_ids)
            usual = turn.prompt_ids == _usual_ids(recipe, tokenizer, prompt)
            return text if not usual and turn.prompt_ids == _plain_ids(tokenizer, text) else None
    return None


def _usual_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """What a user of the model gets for a prompt who knows nothing but its tokenizer."""
    if not tokenizer.chat_template:
        return list(tokenized(tokenizer, prompt)["input_ids"])
    chat = Renderer(recipe, tokenizer).with_system(Chat(({"role": "user", "content": prompt},)))
    return _plain_ids(tokenizer, ChatRenderer(tokenizer).prompt(chat.messages))


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenized(tokenizer, text, add_special_tokens=False)["input_ids"])


def end_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids of the tokens at which an answer ends: the EOS token, and those of the chat template."""
    return ChatRenderer(tokenizer).end_ids


@dataclass(frozen=True)
class Asker:
    """Splits rows as training gets them into what is asked and what is trained as the answer."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase

    def of_rows(self, rows: Iterator[Row]) -> Iterator[EvaluationPrompt]:
        """The prompts of rows; those without one, and those that training skips or drops, are left out."""
        for row in rows:
            try:
                turn = self._turn(row)
            except RowError:  # preparing the rows has counted it, or has raised it
                continue
            asked = turn and self._asked(row, turn)
            if turn and asked:
                written, ended = up_to_end(turn.trained_ids, self._end_ids)
                limit = None if ended else len(written)
                yield EvaluationPrompt(asked, turn.prompt_ids, self.tokenizer.decode(written), limit)

    def to_user(self, text: str) -> Turn | None:
        """The turn that training would train for a prompt; raises RowError."""
        if self.chats:
            return self.to_messages(({"role": "user", "content": text},))
        return self._last_turn(Pair(text, _answer_to(text)))

    def to_messages(self, messages: Sequence[Message]) -> Turn | None:
        """The turn that training would train after some messages of a chat; raises RowError."""
        answer = {"role": "assistant", "content": _answer_to(messages[-1]["content"])}
        length = None if self._renderer.masks else len(messages)
        return self._last_turn(Chat((*messages, answer), prompt_length=length))

    @property
    def chats(self) -> bool:
        """Whether rows are rendered with a chat template."""
        return self._renderer.template is not None

    def _last_turn(self, row: Row) -> Turn | None:
        return last_turn(encode([self._renderer.render(row)], self.tokenizer)[0])

    def _turn(self, row: Row) -> Turn | None:
        encoded = encode([self._renderer.render(row)], self.tokenizer)[0]
        truncated = truncate(encoded, self.recipe["train"]["max_length"])
        return last_turn(truncated) if truncated else None

    def _asked(self, row: Row, turn: Turn) -> list[Message] | str:
        """What comes before the turn: messages, or the prompt of a plain pair; empty if nothing does."""
        if isinstance(row, Pair) and not self._renderer.template:
            return row.prompt
        chat = as_chat(row) if isinstance(row, Pair) else row
        if not isinstance(chat, Chat):
            return ""
        chat = self._renderer.with_system(chat)
        answers = trained_answers(chat)  # fewer than turns where the template marks one answer in parts
        return list(chat.messages[: answers[max(turn.place, -len(answers))]])

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.recipe, self.tokenizer)

    @cached_property
    def _end_ids(self) -> frozenset[int]:
        return end_ids(self.tokenizer)


def _answer_to(text: str) -> str:
    """The shortest answer that leaves the tokens of a prompt as they are.

    White space at the end is part of an answer's first word, as most tokenizers split; a word is not.
    """
    return str(ANSWER["content"]) if text[-1:].isalnum() else "the"


def last_turn(row: Encoded) -> Turn | None:
    """The last trained turn that a row still has after truncation; None if no token comes before it."""
    started = [turn for turn in enumerate(row.turns, -len(row.turns)) if 0 < turn[1] < len(row.ids)]
    if not started:
        return None
    place, start = started[-1]
    labels = row.labels[start:].tolist()
    return Turn(
        place, row.ids[:start].tolist(), list(itertools.takewhile(lambda label: label != MASKED, labels))
    )
