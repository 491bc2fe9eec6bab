"""The special tokens at both ends of plain text, once each: the tokenizer's own, the text's, or added."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from loracook.data.read.rows import Chat, Message, Pair, Row
from loracook.model.own_tokenizer import tokenized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class SpecialTokens:
    """The text that a tokenizer puts before and after every text, its EOS token, and all special tokens."""

    before: str
    after: str
    eos: str
    every: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """The special tokens of a tokenizer, those that it adds read off a text of one letter."""
        plain, whole = (_tokens(tokenizer, special) for special in (False, True))
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        before, after = whole[:start], whole[start + len(plain) :]
        every = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        return cls("".join(before), "".join(after), tokenizer.eos_token or "", tuple(every))

    def once_each(self, text: str) -> tuple[str, str, tuple[str, ...]]:
        """The text as the tokenizer should get it, the EOS token added to it, and those dropped from it."""
        body = self.without_start(text)
        dropped = (self.before,) if body != text else ()
        ended, body = bool(self.eos) and body.rstrip().endswith(self.eos), self.without_end(body)
        if self.after.endswith(self.eos):  # the tokenizer adds it, or there is none
            return body, "", (*dropped, self.eos) if ended else dropped
        return body + self.eos, "" if ended else self.eos, dropped

    def without_start(self, text: str) -> str:
        """The text without what the tokenizer puts before it, too."""
        while self.before and text.startswith(self.before):
            text = text.removeprefix(self.before)
        return text

    def without_end(self, text: str) -> str:
        """The text without the EOS tokens at its end, and the white space after them."""
        while self.eos and text.rstrip().endswith(self.eos):
            text = text.rstrip().removesuffix(self.eos)
        return text

    def within(self, row: Row) -> set[str]:
        """The special tokens in a row's own text; those at the ends of a plain one do not count."""
        return {token for text in self._texts(row) for token in self._pattern.findall(text)}

    def _texts(self, row: Row) -> Iterable[str]:
        if isinstance(row, Chat):
            return [text for message in row.messages for text in self._texts_of(message)]
        text = row.prompt + row.completion if isinstance(row, Pair) else row.text
        return (self.without_end(self.without_start(text)),)

    def _texts_of(self, message: Message) -> Iterable[str]:
        """The texts of a message; an end of an answer is dropped where the template writes one, too."""
        text, reasoning = (str(message.get(key) or "") for key in ("content", "reasoning_content"))
        return (self.without_end(text) if message["role"] == "assistant" else text), reasoning

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.every, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _tokens(tokenizer: PreTrainedTokenizerBase, special: bool) -> list[str]:
    ids = tokenized(tokenizer, "a", add_special_tokens=special, verbose=False)["input_ids"]
    return list(tokenizer.convert_ids_to_tokens(ids))
