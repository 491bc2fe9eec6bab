"""Rows → text as the model sees it, and which part of the text is in the loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import (
    MAX_CHARACTERS,
    Chat,
    Message,
    Pair,
    Row,
    RowError,
    Text,
    TooLongError,
    json_fault,
)
from loracook.data.tokenize.chat_mask import ChatRenderer, Spans
from loracook.data.tokenize.sandbox import RunawayError
from loracook.data.tokenize.special_tokens import SpecialTokens
from loracook.errors import RecipeError
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_VARIANTS = 64
"""How many different arguments for the chat template are remembered; rows may each have their own."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as text; in the loss are the character spans, or everything after the prompt.

    `turns` are the texts before each trained turn where the spans do not begin them. Of the special tokens at
    the ends of a plain row, `added` is the one that it did not have, and `dropped` are those that the
    tokenizer adds, too.
    """

    text: str
    spans: Spans = ()
    prompt: str | None = None
    turns: tuple[str, ...] = ()
    special: bool = False
    added: str = ""
    dropped: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """How many characters are tokenized at once: those of the row, or of the texts before its turns."""
        return max(len(self.text), sum(map(len, {*self.turns, *([self.prompt] if self.prompt else ())})))

    @property
    def trained(self) -> str:
        """The text that is in the loss."""
        if self.prompt is not None:
            return self.text[len(self.prompt) :]
        return "".join(self.text[start:end] for start, end in self.spans)


@dataclass(frozen=True)
class Renderer:
    """Renders rows as text according to the recipe's template section; `template_kwargs` are a row's own."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def render(self, row: Row) -> Rendered:
        """The row as text.

        Raises:
            RowError: the template refuses the row or makes too much of it, or no mask can be had from it.
            RecipeError: the loss does not fit, or rendering takes too much time, memory or text.
        """
        rendered = self._rendered(row)
        if rendered.characters > MAX_CHARACTERS:
            raise TooLongError(rendered.characters)
        if fault := json_fault(rendered.text):
            raise RowError("no text", fault)
        return rendered

    def _rendered(self, row: Row) -> Rendered:
        if isinstance(row, Pair) and self.template:
            row = as_chat(row)
        if not isinstance(row, Chat):
            return self._pair(row) if isinstance(row, Pair) else self._text(row)
        try:
            return (self._with(row.template_kwargs) if row.template_kwargs else self)._chat(row)
        except RunawayError as error:
            raise self._fail(
                "chat_template", f"cannot render a row: {error}; use another template"
            ) from error

    def with_system(self, chat: Chat) -> Chat:
        """The chat, with the recipe's system message first unless it has one of its own."""
        system = self.recipe["template"].get("system")
        if system is None or chat.messages[0]["role"] in ("system", "developer"):
            return chat
        prompt_length = None if chat.prompt_length is None else chat.prompt_length + 1
        opening = {"role": "system", "content": system}
        return replace(chat, messages=(opening, *chat.messages), prompt_length=prompt_length)

    @property
    def template(self) -> str | None:
        """The chat template in use; None if rows stay plain text."""
        return self._chats.template

    @property
    def masks(self) -> bool:
        """Whether the template marks what the assistant writes."""
        return self._chats.masks

    @cached_property
    def _chats(self) -> ChatRenderer:
        return ChatRenderer(self.tokenizer, self.template_kwargs)

    def _with(self, template_kwargs: Mapping[str, Any]) -> Renderer:
        """The renderer for rows with these arguments for the chat template."""
        key = json.dumps(template_kwargs, sort_keys=True, default=str)
        if len(self._variants) > MOST_VARIANTS:
            self._variants.clear()
        return self._variants.setdefault(key, replace(self, template_kwargs=template_kwargs))

    @cached_property
    def _variants(self) -> dict[str, Renderer]:
        return {}

    @cached_property
    def _loss(self) -> str | None:
        loss: str | None = self.recipe["template"].get("loss")
        return loss

    def _text(self, row: Text) -> Rendered:
        if self._loss not in (None, "all"):
            message = f"{self._loss} requires chats or prompts with completions, but the rows are plain text"
            raise self._fail("loss", message)
        return self._plain(row.text)

    def _pair(self, row: Pair) -> Rendered:
        plain = self._plain(row.prompt + row.completion)
        prompt = self._special_tokens.without_start(row.prompt)
        if self._loss == "all":
            return replace(plain, turns=(prompt,))
        return replace(plain, spans=(), prompt=prompt, turns=(prompt,))

    def _plain(self, text: str) -> Rendered:
        """A text with its special tokens once each, all of it in the loss."""
        text, added, dropped = self._special_tokens.once_each(text)
        return Rendered(text, ((0, len(text)),), special=True, added=added, dropped=dropped)

    @cached_property
    def _special_tokens(self) -> SpecialTokens:
        return SpecialTokens.of(self.tokenizer)

    def _chat(self, chat: Chat) -> Rendered:
        if self.template is None:
            message = "the rows are chats, which require a chat template; set chatml, plain or a .jinja file"
            raise self._fail("chat_template", message)
        ended = [index for index in _answers(chat) if self._ends_itself(chat.messages[index])]
        if ended and self._chats.writes_eos:
            messages = [self._without_end(m) if i in ended else m for i, m in enumerate(chat.messages)]
            rendered = self._chat_in_loss(replace(chat, messages=tuple(messages)))
            return replace(rendered, dropped=(self._special_tokens.eos,))
        return self._chat_in_loss(chat)

    def _ends_itself(self, message: Message) -> bool:
        return self._without_end(message) != message

    def _without_end(self, message: Message) -> Message:
        return {**message, "content": self._special_tokens.without_end(message["content"])}

    def _chat_in_loss(self, chat: Chat) -> Rendered:
        loss = self._loss or ("assistant" if chat.prompt_length is None else "completion")
        self._check(chat, loss)
        chat = self.with_system(chat)
        if loss == "assistant":
            return self._answers(chat)
        if loss == "all":
            text = self._chats.text(chat.messages, chat.tools)
            last = max(_answers(chat))
            turns: tuple[str, ...] = ()
            with suppress(RowError):  # then evaluation does not ask for it
                turns = (self._prompt(chat, last, text),) if last else ()
            return Rendered(text, ((0, len(text)),), turns=turns)
        return self._completion(chat, chat.prompt_length if loss == "completion" else None)

    def _check(self, chat: Chat, loss: str) -> None:
        calls = chat.tools or any("tool_calls" in message for message in chat.messages)
        if calls and not self._chats.supports_tools:
            raise RowError("tool calls", "the chat template does not support them; use one such as qwen3")
        if chat.tools and not self._chats.writes_tools:
            detail = (
                "the chat template does not write them; say in a system message what they do, or use qwen3"
            )
            raise RowError("tools", detail)
        if loss != "assistant" and any("train" in message for message in chat.messages):
            raise RowError("train flags", f"messages with train: false require loss: assistant, not {loss}")

    def _answers(self, chat: Chat) -> Rendered:
        """In the loss: what the assistant writes, except for messages with `train: false`."""
        text, spans = self._chats.text_and_answers(chat.messages, chat.tools)
        flags = [message.get("train", True) for message in chat.messages if message["role"] == "assistant"]
        if all(flags):
            return Rendered(text, spans)
        if len(spans) != len(flags):
            raise RowError("train flags", f"the template marks {len(spans)} spans for {len(flags)} answers")
        return Rendered(text, tuple(span for span, trained in zip(spans, flags, strict=True) if trained))

    def _completion(self, chat: Chat, prompt_length: int | None) -> Rendered:
        """In the loss: what follows the prompt, by default the last answer."""
        last = max(_answers(chat))
        text = self._chats.text(chat.messages[: last + 1], chat.tools)
        length = last if prompt_length is None else prompt_length
        if not length:
            raise RowError("no prompt", "nothing comes before the answer that is in the loss")
        trained = [index for index in _answers(chat) if index >= length]
        prompts = {index: self._prompt(chat, index, text) for index in {length, *trained}}
        return Rendered(text, prompt=prompts[length], turns=tuple(prompts[index] for index in trained))

    def _prompt(self, chat: Chat, index: int, text: str) -> str:
        """What of a chat's text comes before an answer; raises RowError where an answer changes that."""
        try:
            return text[: self._chats.prompt_length(chat.messages[:index], chat.tools, text)]
        except RowError as error:
            rewrites = "the chat template rewrites earlier turns once an answer follows"
            raise RowError("cannot mask", f"{rewrites}; write loss: assistant, or use qwen3") from error

    def _fail(self, key: str, message: str) -> RecipeError:
        return RecipeError([self.recipe.problem(("template", key), message)])


def trained_answers(chat: Chat) -> list[int]:
    """The indices of the assistant messages that can be in the loss."""
    return [index for index in _answers(chat) if chat.messages[index].get("train", True)]


def _answers(chat: Chat) -> list[int]:
    return [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]


def as_chat(row: Pair) -> Chat:
    """A prompt and its completion as a user message and an assistant message."""
    messages = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
    return Chat(messages, prompt_length=1)
