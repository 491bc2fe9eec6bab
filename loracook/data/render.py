"""Rows → text as the model sees it, and which part of the text is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loracook.data.rows import Chat, Message, Pair, Row, RowError, Text
from loracook.data.template import can_mask, cannot_mask, chat_template
from loracook.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe import Recipe

REFUSALS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a template may raise of itself when a row is not as it expects."""
SPEAKING = ("system", "user", "assistant")
ASKED: Message = {"role": "user", "content": "?"}
CALLED: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
}
RETURNED: Message = {"role": "tool", "name": "f", "content": "?"}
ANSWERED: Message = {"role": "assistant", "content": "\u2603"}


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
        return self._rendered(chat.messages, chat, generate=True)[0]

    def with_system(self, chat: Chat) -> Chat:
        """The chat, opened by the recipe's system text where it has none of its own."""
        system = self.recipe["template"].get("system")
        if system is None or chat.messages[0]["role"] in ("system", "developer"):
            return chat
        opening = None if chat.opening is None else chat.opening + 1
        return Chat(({"role": "system", "content": system}, *chat.messages), chat.tools, opening)

    @cached_property
    def template(self) -> str | None:
        """The chat template in use; None where rows stay plain text."""
        return chat_template(self.tokenizer)

    @cached_property
    def _loss(self) -> str | None:
        found: str | None = self.recipe["template"].get("loss")
        return found

    @cached_property
    def _masks(self) -> bool:
        return can_mask(self.tokenizer)

    @cached_property
    def _calls_tools(self) -> bool:
        from trl.chat_template_utils import supports_tool_calling

        return bool(supports_tool_calling(self.tokenizer))

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
            text, _ = self._written(chat.messages, chat)
            return Rendered(text, ((0, len(text)),))
        return self._last(chat, chat.opening if loss == "completion" else None)

    def _check(self, chat: Chat, loss: str) -> None:
        calls = chat.tools or any("tool_calls" in message for message in chat.messages)
        if calls and not self._calls_tools:
            raise RowError(
                "tool calls", "the chat template does not write them; name one that does, such as qwen3"
            )
        if loss != "assistant" and any("train" in message for message in chat.messages):
            raise RowError(
                "turn flags", f"turns marked as not to be learned need loss: assistant, not {loss}"
            )

    def _answers(self, chat: Chat) -> Rendered:
        """Learned is what the template marks, but for turns that the row excepts."""
        if not self._masks:
            raise cannot_mask(self.recipe)
        text, marked = self._written(chat.messages, chat)
        spans = tuple(self._said(text, span) for span in joined(marked))
        spoken = [message.get("train", True) for message in chat.messages if message["role"] == "assistant"]
        if all(spoken):
            return Rendered(text, spans)
        if len(spans) != len(spoken):
            raise RowError("turn flags", f"the template marks {len(spans)} parts of {len(spoken)} answers")
        return Rendered(text, tuple(span for span, learned in zip(spans, spoken, strict=True) if learned))

    def _said(self, text: str, span: tuple[int, int]) -> tuple[int, int]:
        """The part of a marked span that the model itself has to write, up to the token that ends its turn.

        Some templates mark what stands before an answer, or the line end behind it, along with the answer.
        """
        start, end = span
        start += next((len(head) for head in self._heads if text.startswith(head, start)), 0)
        said = text[start:end].rstrip()
        return start, start + len(said) if said.endswith(self._marks) else end

    @cached_property
    def _heads(self) -> tuple[str, ...]:
        """What the template marks of answers though the prompt for one has it already, longest first."""
        found = {self._head((ASKED,))}
        if self._calls_tools:
            found.add(self._head((ASKED, CALLED, RETURNED)))
        return tuple(sorted(found - {""}, key=len, reverse=True))

    def _head(self, before: tuple[Message, ...]) -> str:
        after = (*before, ANSWERED)
        try:
            prompt, _ = self._rendered(before, Chat(before), generate=True)
            text, spans = self._rendered(after, Chat(after))
        except RowError:  # a template may refuse such a chat
            return ""
        starts = [start for start, end in spans if ANSWERED["content"] in text[start:end]]
        differ = (place for place, (one, other) in enumerate(zip(prompt, text, strict=False)) if one != other)
        return text[starts[0] : next(differ, len(prompt))] if starts else ""

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.get_added_vocab())

    def _last(self, chat: Chat, opening: int | None) -> Rendered:
        """Learned is the completion: what follows the opening, or the last answer."""
        last = max(index for index, message in enumerate(chat.messages) if message["role"] == "assistant")
        text, _ = self._written(chat.messages[: last + 1], chat)
        before = chat.messages[: last if opening is None else opening]
        if not before:
            raise RowError("no prompt", "the row opens with the answer that is to be learned")
        return Rendered(text, prompt=self._rendered(before, chat, generate=True)[0])

    def _written(self, messages: Sequence[Message], chat: Chat) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The messages as text with the marked spans; raises RowError where something said is not in it."""
        text, spans = self._rendered(messages, chat)
        for message in messages:
            if message["role"] in SPEAKING and spoken(message) not in text:
                lost = f"the chat template does not write what the {message['role']} says"
                raise RowError("lost text", f"{lost}; choose another or mend it")
        return text, spans

    def _rendered(
        self, messages: Sequence[Message], chat: Chat, *, generate: bool = False
    ) -> tuple[str, tuple[tuple[int, int], ...]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        shown = [{key: value for key, value in turn.items() if key != "train"} for turn in messages]
        try:
            rendered, spans = render_jinja_template(
                conversations=[shown],
                tools=list(chat.tools) or None,
                chat_template=self.template,
                return_assistant_tokens_mask=self._masks,
                add_generation_prompt=generate,
                **self._special,
            )
        except (TemplateError, *REFUSALS) as error:
            raise RowError("template", f"the chat template refuses the row: {error}") from error
        return rendered[0], tuple(spans[0]) if spans else ()

    @cached_property
    def _special(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)

    def _fail(self, key: str, message: str) -> RecipeError:
        return RecipeError([self.recipe.problem(("template", key), message)])


def spoken(message: Message) -> str:
    """What a message says, without the reasoning that some templates take out of it."""
    return str(message.get("content") or "").rpartition("</think>")[2].strip()


def joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that touch as one: a template may mark an answer and the end of the text behind it apart."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return found


def paired(row: Pair) -> Chat:
    """A prompt and its completion as one question and its answer."""
    turns = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
    return Chat(turns, opening=1)
