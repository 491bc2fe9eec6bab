"""Messages → text as a chat template writes them, and which part of it the assistant says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from loracook.data.read.rows import Message, RowError
from loracook.data.tokenize.template import can_mask, chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans: TypeAlias = tuple[tuple[int, int], ...]
Tools: TypeAlias = Sequence[dict[str, Any]]

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


@dataclass(frozen=True)
class ChatWriter:
    """A tokenizer's chat template at work."""

    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def template(self) -> str | None:
        """The chat template in use; None where rows stay plain text."""
        return chat_template(self.tokenizer)

    @cached_property
    def masks(self) -> bool:
        """Whether the template marks what the assistant says."""
        return can_mask(self.tokenizer)

    @cached_property
    def calls_tools(self) -> bool:
        """Whether the template writes tool calls."""
        from trl.chat_template_utils import supports_tool_calling

        return bool(supports_tool_calling(self.tokenizer))

    def asked(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The messages as text up to where the assistant is to speak; raises RowError."""
        return self._rendered(messages, tools, add_generation_prompt=True)[0]

    def written(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The messages as text; raises RowError where the template refuses them or leaves something out."""
        return self._whole(messages, tools)[0]

    def answers(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[str, Spans]:
        """The messages as text and where in it the assistant speaks, as the template marks it."""
        text, marked = self._whole(messages, tools)
        return text, tuple(self._said(text, span) for span in joined(marked))

    def _whole(self, messages: Sequence[Message], tools: Tools) -> tuple[str, Spans]:
        text, marked = self._rendered(messages, tools)
        for message in messages:
            if message["role"] in SPEAKING and spoken(message) not in text:
                lost = f"the chat template does not write what the {message['role']} says"
                raise RowError("lost text", f"{lost}; choose another or mend it")
        return text, marked

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
        if self.calls_tools:
            found.add(self._head((ASKED, CALLED, RETURNED)))
        return tuple(sorted(found - {""}, key=len, reverse=True))

    def _head(self, before: tuple[Message, ...]) -> str:
        try:
            prompt = self.asked(before)
            text, spans = self._rendered((*before, ANSWERED))
        except RowError:  # a template may refuse such a chat
            return ""
        starts = [start for start, end in spans if ANSWERED["content"] in text[start:end]]
        differ = (place for place, (one, other) in enumerate(zip(prompt, text, strict=False)) if one != other)
        return text[starts[0] : next(differ, len(prompt))] if starts else ""

    @cached_property
    def ends(self) -> set[str]:
        """The tokens that end what the assistant says: the first one behind an answer, the last of a call."""
        answer = self._tried((ASKED, ANSWERED)).rpartition(ANSWERED["content"])[2]
        behind = sorted((mark for mark in self._marks if mark in answer), key=answer.index)
        call = self._tried((ASKED, CALLED)).rstrip()
        return {*behind[:1], *(mark for mark in self._marks if call.endswith(mark))}

    def _tried(self, messages: tuple[Message, ...]) -> str:
        """The messages as text, nothing where there is no template or it refuses such a chat."""
        try:
            return self._rendered(messages)[0] if self.template else ""
        except RowError:
            return ""

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.get_added_vocab())

    def _rendered(self, messages: Sequence[Message], tools: Tools = (), **asked: bool) -> tuple[str, Spans]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        shown = [{key: value for key, value in turn.items() if key != "train"} for turn in messages]
        try:
            rendered, spans = render_jinja_template(
                conversations=[shown],
                tools=list(tools) or None,
                chat_template=self.template,
                return_assistant_tokens_mask=self.masks,
                **asked,
                **self._special,
            )
        except (TemplateError, *REFUSALS) as error:
            raise RowError("template", f"the chat template refuses the row: {error}") from error
        return rendered[0], tuple(spans[0]) if spans else ()

    @cached_property
    def _special(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)


def spoken(message: Message) -> str:
    """What a message says, without the reasoning that some templates take out of it."""
    return str(message.get("content") or "").rpartition("</think>")[2].strip()


def joined(spans: Spans) -> list[tuple[int, int]]:
    """Spans that touch as one: a template may mark an answer and the end of the text behind it apart."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return found
