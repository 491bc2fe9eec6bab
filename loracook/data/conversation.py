"""A conversation with a model, each answer asked for with the tokens that training conditions on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from loracook.data.eval_prompts import Asker
from loracook.data.read.rows import Message, RowError


@dataclass(frozen=True)
class Conversation:
    """The messages so far; without a chat template there are none, and each prompt stands by itself."""

    asker: Asker
    messages: tuple[Message, ...] = ()

    @property
    def system(self) -> str | None:
        """The system message: the conversation's own, or that of the recipe."""
        own = next((turn["content"] for turn in self.messages if turn["role"] == "system"), None)
        recipes: str | None = self.asker.recipe["template"].get("system") if self.asker.chats else None
        return own or recipes

    def prompt_ids(self, text: str) -> list[int]:
        """The token ids before the answer to a message; raises RowError where training has none."""
        asked = (*self.messages, {"role": "user", "content": text})
        turn = self.asker.to_messages(asked) if self.asker.chats else self.asker.to_user(text)
        if turn is None:
            raise RowError("no prompt", "no token comes before the answer; write a longer one")
        return turn.prompt_ids

    def answered(self, text: str, answer: str) -> Conversation:
        """The conversation with a user's message and the answer to it."""
        turns = ({"role": "user", "content": text}, {"role": "assistant", "content": answer})
        return replace(self, messages=(*self.messages, *turns)) if self.asker.chats else self

    def with_system(self, text: str) -> Conversation:
        """The conversation with another system message; raises RowError where the template takes none."""
        if not self.asker.chats:
            raise RowError("no chat template", "each prompt stands by itself")
        others = (turn for turn in self.messages if turn["role"] != "system")
        changed = replace(self, messages=({"role": "system", "content": text}, *others))
        changed.prompt_ids("?")
        return changed
