"""Rows → text as the model sees it, and which part of the text is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import Chat, Message, Pair, Row, RowError, Text
from loracook.data.tokenize.chat_mask import ChatWriter
from loracook.data.tokenize.template import cannot_mask
from loracook.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as text; learned are the spans (in characters), or all that follows the prompt."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()
    prompt: str | None = None
    special: bool = False


@dataclass(frozen=True)
class Renderer:
    """What decides how a row becomes text."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase

    def render(self, row: Row) -> Rendered:
        """The row as text; raises RowError where the template refuses it, RecipeError where the loss does."""
        if isinstance(row, Pair) and self.template:
            row = paired(row)
        if isinstance(row, Chat):
            return self._chat(row)
        return self._pair(row) if isinstance(row, Pair) else self._text(row)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Messages as text up to where the assistant is to speak; the recipe's system text goes first."""
        chat = self.with_system(Chat(tuple(messages), tuple(dict(tool) for tool in tools)))
        return self._writer.asked(chat.messages, chat.tools)

    def with_system(self, chat: Chat) -> Chat:
        """The chat, opened by the recipe's system text where it has none of its own."""
        system = self.recipe["template"].get("system")
        if system is None or chat.messages[0]["role"] in ("system", "developer"):
            return chat
        opening = None if chat.opening is None else chat.opening + 1
        return Chat(({"role": "system", "content": system}, *chat.messages), chat.tools, opening)

    @property
    def template(self) -> str | None:
        """The chat template in use; None where rows stay plain text."""
        return self._writer.template

    @cached_property
    def _writer(self) -> ChatWriter:
        return ChatWriter(self.tokenizer)

    @cached_property
    def _loss(self) -> str | None:
        found: str | None = self.recipe["template"].get("loss")
        return found

    def _text(self, row: Text) -> Rendered:
        if self._loss not in (None, "all"):
            raise self._fail(
                "loss", f"{self._loss} needs chats or prompts with a completion; these rows are plain text"
            )
        text = self._ended(row.text)
        return Rendered(text, ((0, len(text)),), special=True)

    def _pair(self, row: Pair) -> Rendered:
        text = self._ended(row.prompt + row.completion)
        if self._loss == "all":
            return Rendered(text, ((0, len(text)),), special=True)
        return Rendered(text, prompt=row.prompt, special=True)

    def _ended(self, text: str) -> str:
        end = self.tokenizer.eos_token or ""
        return text if end and text.endswith(end) else text + end

    def _chat(self, chat: Chat) -> Rendered:
        if self.template is None:
            message = "chats need a chat template; write chatml, plain or a .jinja file"
            raise self._fail("chat_template", message)
        loss = self._loss or ("assistant" if chat.opening is None else "completion")
        self._check(chat, loss)
        chat = self.with_system(chat)
        if loss == "assistant":
            return self._answers(chat)
        if loss == "all":
            text = self._writer.written(chat.messages, chat.tools)
            return Rendered(text, ((0, len(text)),))
        return self._last(chat, chat.opening if loss == "completion" else None)

    def _check(self, chat: Chat, loss: str) -> None:
        calls = chat.tools or any("tool_calls" in message for message in chat.messages)
        if calls and not self._writer.calls_tools:
            raise RowError(
                "tool calls", "the chat template does not write them; name one that does, such as qwen3"
            )
        if loss != "assistant" and any("train" in message for message in chat.messages):
            raise RowError(
                "turn flags", f"turns marked as not to be learned need loss: assistant, not {loss}"
            )

    def _answers(self, chat: Chat) -> Rendered:
        """Learned is what the template marks, but for turns that the row excepts."""
        if not self._writer.masks:
            raise cannot_mask(self.recipe)
        text, spans = self._writer.answers(chat.messages, chat.tools)
        flags = [message.get("train", True) for message in chat.messages if message["role"] == "assistant"]
        if all(flags):
            return Rendered(text, spans)
        if len(spans) != len(flags):
            raise RowError("turn flags", f"the template marks {len(spans)} parts of {len(flags)} answers")
        return Rendered(text, tuple(span for span, learned in zip(spans, flags, strict=True) if learned))

    def _last(self, chat: Chat, opening: int | None) -> Rendered:
        """Learned is the completion: what follows the opening, or the last answer."""
        last = max(index for index, message in enumerate(chat.messages) if message["role"] == "assistant")
        text = self._writer.written(chat.messages[: last + 1], chat.tools)
        before = chat.messages[: last if opening is None else opening]
        if not before:
            raise RowError("no prompt", "the row opens with the answer that is to be learned")
        return Rendered(text, prompt=self._writer.asked(before, chat.tools))

    def _fail(self, key: str, message: str) -> RecipeError:
        return RecipeError([self.recipe.problem(("template", key), message)])


def paired(row: Pair) -> Chat:
    """A prompt and its completion as one question and its answer."""
    turns = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
    return Chat(turns, opening=1)
