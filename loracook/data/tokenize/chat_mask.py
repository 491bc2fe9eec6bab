"""Messages → text as the chat template renders them, and the spans of it that the assistant writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from loracook.data.read.rows import Message, RowError
from loracook.data.tokenize.probes import (
    ANSWER,
    QUESTION,
    TOOL,
    TOOL_CALL,
    TOOL_CALLS,
    TOOL_PARTS,
    TOOL_RESULT,
)
from loracook.data.tokenize.sandbox import RenderingError, limited
from loracook.data.tokenize.template import MASKING_ADVICE, can_mask, chat_template
from loracook.data.tokenize.tool_arguments import wants_text, with_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans: TypeAlias = tuple[tuple[int, int], ...]
Tools: TypeAlias = Sequence[dict[str, Any]]

TEXT_ROLES = ("system", "user", "assistant")
REWRITES = f"the chat template rewrites earlier turns; {MASKING_ADVICE}"


@dataclass(frozen=True)
class ChatRenderer:
    """Renders conversations with a tokenizer's chat template, which also gets `template_kwargs`."""

    tokenizer: PreTrainedTokenizerBase
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def template(self) -> str | None:
        """The chat template in use; None if rows stay plain text."""
        return chat_template(self.tokenizer)

    @cached_property
    def masks(self) -> bool:
        """Whether the template marks assistant text with {% generation %}."""
        return can_mask(self.tokenizer)

    @cached_property
    def supports_tools(self) -> bool:
        """Whether the template writes a tool call, its arguments and its result."""
        text = self._text_or_empty((QUESTION, TOOL_CALL, TOOL_RESULT))
        return all(part in text for part in TOOL_PARTS)

    @cached_property
    def writes_tools(self) -> bool:
        """Whether the template writes the definitions of tools."""
        return TOOL["function"]["description"] in self._text_or_empty((QUESTION, ANSWER), [TOOL])

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The messages as text, ending with the generation prompt; raises RowError."""
        return self._render(messages, tools, add_generation_prompt=True)[0]

    def text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The messages as text; raises RowError if the template fails or drops a message."""
        return self._complete(messages, tools)[0]

    def text_and_answers(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[str, Spans]:
        """The messages as text and the spans of it that the assistant writes; raises RowError.

        A template that marks them decides; without marks they are what each answer adds to its prompt.
        """
        text, marked = self._complete(messages, tools)
        spans = merge_adjacent(marked) if self.masks else self._added_by_answers(messages, tools, text)
        return text, tuple(self._answer_span(text, span) for span in spans)

    def _added_by_answers(
        self, messages: Sequence[Message], tools: Tools, text: str
    ) -> Iterator[tuple[int, int]]:
        """The span of each answer: from the end of its prompt to the end of the chat up to and with it."""
        for index in (index for index, turn in enumerate(messages) if turn["role"] == "assistant"):
            end = self._length(messages[: index + 1], tools, text)
            yield self.prompt_length(messages[:index], tools, text), end

    def prompt_length(self, before: Sequence[Message], tools: Tools, text: str) -> int:
        """How much of a chat is the prompt of the answer after the messages `before`; raises RowError."""
        prompt = self.prompt(before, tools) if before else ""
        if before and text.startswith(prompt):
            return len(prompt)
        # The generation prompt opens what this answer lacks, such as reasoning: it begins where the two part.
        start = self._length(before, tools, text)
        texts = [text, self._render((*before, ANSWER), tools)[0], *([prompt] if before else ())]
        letters = enumerate(map(set, zip(*texts, strict=False)))
        parting = next((index for index, several in letters if len(several) > 1), min(map(len, texts)))
        if parting <= start < len(prompt):  # an answer changes what comes before it
            raise RowError("cannot mask", REWRITES)
        return parting

    def _length(self, messages: Sequence[Message], tools: Tools, text: str) -> int:
        """The length of the first messages of a chat; RowError where its text begins otherwise."""
        start = self._render(messages, tools)[0] if messages else ""
        if text.startswith(start):
            return len(start)
        raise RowError("cannot mask", REWRITES)

    def _complete(self, messages: Sequence[Message], tools: Tools) -> tuple[str, Spans]:
        text, marked = self._render(messages, tools)
        for message in messages:
            if message["role"] in TEXT_ROLES and visible_text(message) not in text:
                dropped = f"the {message['role']} message is not in the rendered text"
                raise RowError("dropped by the chat template", f"{dropped}; fix the template or use another")
        self._refuse_dropped_calls(messages, tools, text)
        self._refuse_text_after_results(messages)
        return text, marked

    def _refuse_dropped_calls(self, messages: Sequence[Message], tools: Tools, text: str) -> None:
        """Raise RowError where the text is the same without the last of a message's parallel tool calls."""
        for index, message in enumerate(messages):
            calls = message.get("tool_calls", ())
            fewer = [*messages[:index], {**message, "tool_calls": calls[:-1]}, *messages[index + 1 :]]
            if len(calls) > 1 and self._render(fewer, tools)[0] == text:
                detail = "the template writes one tool call of a message; use another such as qwen3"
                raise RowError("dropped by the chat template", detail)

    def _refuse_text_after_results(self, messages: Sequence[Message]) -> None:
        """Raise RowError where the template moves a message's text behind the results of its tool calls."""
        for message, following in itertools.pairwise(messages):
            answered = "tool_calls" in message and following["role"] == "tool"
            if answered and visible_text(message) and self._text_after_results:
                detail = "the template writes the text of a tool call after its result; use one such as qwen3"
                raise RowError("cannot mask", detail)

    @cached_property
    def _text_after_results(self) -> bool:
        text = self._text_or_empty((QUESTION, {**TOOL_CALL, **ANSWER}, TOOL_RESULT))
        return TOOL_RESULT["content"] in text.partition(ANSWER["content"])[0]

    def _answer_span(self, text: str, span: tuple[int, int]) -> tuple[int, int]:
        """The part of a marked span that the model itself generates, up to the token that ends its turn.

        Some templates mark the role header before an answer, or the newline after it, as part of the answer.
        """
        start, end = span
        start += next((len(header) for header in self._headers if text.startswith(header, start)), 0)
        answer = text[start:end].rstrip()
        return start, start + len(answer) if answer.endswith(self._added_tokens) else end

    @cached_property
    def _headers(self) -> tuple[str, ...]:
        """Text that the template marks as answer although it is in the generation prompt, longest first."""
        headers = {self._header((QUESTION,))}
        if self.supports_tools:
            headers.add(self._header((QUESTION, TOOL_CALL, TOOL_RESULT)))
        return tuple(sorted(headers - {""}, key=len, reverse=True))

    def _header(self, before: tuple[Message, ...]) -> str:
        try:
            prompt = self.prompt(before)
            text, spans = self._render((*before, ANSWER))
        except RowError:  # a template may reject such a chat
            return ""
        starts = [start for start, end in spans if ANSWER["content"] in text[start:end]]
        differing = (index for index, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b)
        return text[starts[0] : next(differing, len(prompt))] if starts else ""

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids of the tokens that end an assistant turn: the EOS token and those of the template.

        The template's are the first one after an answer, and the one that ends a turn of tool calls once.
        """
        tail = self._tail
        after = sorted((token for token in self._added_tokens if token in tail), key=tail.index)
        calls = self._text_or_empty((QUESTION, TOOL_CALLS)) or self._text_or_empty((QUESTION, TOOL_CALL))
        turn = calls.rpartition(QUESTION["content"])[2].rstrip()
        of_calls = (token for token in self._added_tokens if turn.endswith(token) and turn.count(token) == 1)
        ids = self.tokenizer.convert_tokens_to_ids([*after[:1], *of_calls])
        return frozenset({self.tokenizer.eos_token_id, *ids} - {None})

    @cached_property
    def writes_eos(self) -> bool:
        """Whether the template writes the EOS token after an answer."""
        return bool(self.tokenizer.eos_token) and self.tokenizer.eos_token in self._tail

    @cached_property
    def _tail(self) -> str:
        """What the template writes after an answer."""
        return self._text_or_empty((QUESTION, ANSWER)).rpartition(ANSWER["content"])[2]

    def _text_or_empty(self, messages: tuple[Message, ...], tools: Tools = ()) -> str:
        """The messages as text, "" if there is no template or it rejects such a chat."""
        try:
            return self._render(messages, tools)[0] if self.template else ""
        except RowError:
            return ""

    @cached_property
    def _added_tokens(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.get_added_vocab())

    @cached_property
    def _wants_text(self) -> bool:
        return wants_text(lambda messages: self._rendered(messages)[0])

    def _render(self, messages: Sequence[Message], tools: Tools = (), **options: bool) -> tuple[str, Spans]:
        if any("tool_calls" in turn for turn in messages) and self._wants_text:
            messages = with_text(messages)
        return self._rendered(messages, tools, **options)

    def _rendered(self, messages: Sequence[Message], tools: Tools = (), **options: bool) -> tuple[str, Spans]:
        from transformers.utils.chat_template_utils import render_jinja_template

        visible = [{key: value for key, value in turn.items() if key != "train"} for turn in messages]
        try:
            rendered, spans = limited(
                render_jinja_template,
                conversations=[visible],
                tools=list(tools) or None,
                chat_template=self.template,
                return_assistant_tokens_mask=self.masks,
                **{**self.template_kwargs, **self.tokenizer.special_tokens_map, **options},
            )
        except RenderingError as error:
            raise RowError("chat template error", str(error)) from error
        return rendered[0], tuple((start, end) for start, end in spans[0]) if spans else ()


def visible_text(message: Message) -> str:
    """The text of a message without the reasoning that some templates strip from it."""
    return str(message.get("content") or "").rpartition("</think>")[2].strip()


def reasoning_of(message: Message) -> str:
    """The reasoning of a message, which has a key of its own or stands before its text."""
    within = str(message.get("content") or "").rpartition("</think>")[0]
    return str(message.get("reasoning_content") or within).replace("<think>", "").strip()


def merge_adjacent(spans: Spans) -> list[tuple[int, int]]:
    """Spans that hold text, adjacent ones merged: a template may mark an answer and its end separately."""
    merged: list[tuple[int, int]] = []
    for start, end in (span for span in spans if span[0] < span[1]):
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged
