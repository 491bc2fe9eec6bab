"""Rows → text as the model sees it, and which part of the text is in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from loracook.data.read.rows import Chat, Message, Pair, Row, RowError, Text
from loracook.data.tokenize.chat_mask import ChatRenderer, Tools
from loracook.errors import RecipeError
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as text; in the loss are the character spans, or everything after the prompt."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()
    prompt: str | None = None
    special: bool = False


@dataclass(frozen=True)
class Renderer:
    """Renders rows as text according to the recipe's template section."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase

    def render(self, row: Row) -> Rendered:
        """The row as text; raises RowError if the template fails, RecipeError if the loss does not fit."""
        if isinstance(row, Pair) and self.template:
            row = as_chat(row)
        if isinstance(row, Chat):
            return self._chat(row)
        return self._pair(row) if isinstance(row, Pair) else self._text(row)

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """Messages as text ending with the generation prompt; the recipe's system message comes first."""
        chat = self.with_system(Chat(tuple(messages), tuple(tools)))
        return self._chats.prompt(chat.messages, chat.tools)

    def with_system(self, chat: Chat) -> Chat:
        """The chat, with the recipe's system message first unless it has one of its own."""
        system = self.recipe["template"].get("system")
        if system is None or chat.messages[0]["role"] in ("system", "developer"):
            return chat
        prompt_length = None if chat.prompt_length is None else chat.prompt_length + 1
        return Chat(({"role": "system", "content": system}, *chat.messages), chat.tools, prompt_length)

    @property
    def template(self) -> str | None:
        """The chat template in use; None if rows stay plain text."""
        return self._chats.template

    @cached_property
    def _chats(self) -> ChatRenderer:
        return ChatRenderer(self.tokenizer)

    @cached_property
    def _loss(self) -> str | None:
        loss: str | None = self.recipe["template"].get("loss")
        return loss

    def _text(self, row: Text) -> Rendered:
        if self._loss not in (None, "all"):
            message = f"{self._loss} requires chats or prompts with completions, but the rows are plain text"
            raise self._fail("loss", message)
        text = self._with_eos(row.text)
        return Rendered(text, ((0, len(text)),), special=True)

    def _pair(self, row: Pair) -> Rendered:
        text = self._with_eos(row.prompt + row.completion)
        if self._loss == "all":
            return Rendered(text, ((0, len(text)),), special=True)
        return Rendered(text, prompt=row.prompt, special=True)

    def _with_eos(self, text: str) -> str:
        eos = self.tokenizer.eos_token or ""
        return text if eos and text.endswith(eos) else text + eos

    def _chat(self, chat: Chat) -> Rendered:
        if self.template is None:
            message = "the rows are chats, which require a chat template; set chatml, plain or a .jinja file"
            raise self._fail("chat_template", message)
        loss = self._loss or ("assistant" if chat.prompt_length is None else "completion")
        self._check(chat, loss)
        chat = self.with_system(chat)
        if loss == "assistant":
            return self._answers(chat)
        if loss == "all":
            text = self._chats.text(chat.messages, chat.tools)
            return Rendered(text, ((0, len(text)),))
        return self._completion(chat, chat.prompt_length if loss == "completion" else None)

    def _check(self, chat: Chat, loss: str) -> None:
        calls = chat.tools or any("tool_calls" in message for message in chat.messages)
        if calls and not self._chats.supports_tools:
            raise RowError("tool calls", "the chat template does not support them; use one such as qwen3")
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
        last = max(index for index, message in enumerate(chat.messages) if message["role"] == "assistant")
        text = self._chats.text(chat.messages[: last + 1], chat.tools)
        before = chat.messages[: last if prompt_length is None else prompt_length]
        if not before:
            raise RowError("no prompt", "nothing comes before the answer that is in the loss")
        return Rendered(text, prompt=self._chats.prompt(before, chat.tools))

    def _fail(self, key: str, message: str) -> RecipeError:
        return RecipeError([self.recipe.problem(("template", key), message)])


def as_chat(row: Pair) -> Chat:
    """A prompt and its completion as a user message and an assistant message."""
    messages = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
    return Chat(messages, prompt_length=1)
