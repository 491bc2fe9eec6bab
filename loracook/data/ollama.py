"""The chat template as Ollama's own kind of template, proven to render what training rendered."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from loracook.data.read.rows import Message, Pair, RowError, Text
from loracook.data.read.selection import select
from loracook.data.tokenize.chat_mask import TEXT_ROLES, ChatRenderer
from loracook.data.tokenize.render import Renderer, as_chat
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS = 200
"""How many training rows are rendered both ways."""
SYSTEM, USER, ANSWER, SECOND = "\u2603system", "\u2603user", "\u2603answer", "\u2603second"
PROMPT = "{{ .Prompt }}"
TRIMS = (
    "the chat template trims what is said, which Ollama does not: send messages without spaces around them"
)
SPACED = " \n two \t words \n "


class TemplateError(Exception):
    """Why there is no template for Ollama."""


class Turn(NamedTuple):
    """The text before and after the content of a message."""

    before: str
    after: str


@dataclass(frozen=True)
class OllamaTemplate:
    """The constant texts of a chat: of each role, at the start without a system message, and at the end."""

    turns: dict[str, Turn]
    start: str
    generation: str

    def rendered(self, messages: Sequence[Message]) -> str:
        """What Ollama renders for messages that an answer is wanted to."""
        start = "" if messages[0]["role"] == "system" else self.start
        turns = ((self.turns[message["role"]], message["content"]) for message in messages)
        return start + "".join(turn.before + text + turn.after for turn, text in turns) + self.generation

    def go(self) -> str:
        """The template in the syntax of Go's text/template."""
        start = (
            f'{{{{ if and (eq $i 0) (ne .Role "system") }}}}{self.start}{{{{ end }}}}' if self.start else ""
        )
        roles = "{{ else ".join(
            f'if eq .Role "{role}" }}}}{turn.before}{{{{ .Content }}}}{turn.after}'
            for role, turn in self.turns.items()
        )
        message = f"{start}{{{{ {roles}{{{{ end }}}}"
        return f"{{{{ range $i, $m := .Messages }}}}{message}{{{{ end }}}}{self.generation}"


class Rendering(NamedTuple):
    """A template in Go's syntax, how many training rows it renders as they were trained, and what to know."""

    template: str
    rows: int
    note: str = ""


def ollama_template(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Rendering:
    """The template for Ollama of what was trained; raises TemplateError where there can be none."""
    chats = ChatRenderer(tokenizer)
    conversations = list(itertools.islice(_conversations(recipe, tokenizer), ROWS)) if chats.template else []
    if not conversations:
        return Rendering(PROMPT, 0)
    try:
        template = _parts(chats)
        for messages in (*_shapes(template, USER, ANSWER), *conversations):
            if template.rendered(messages) != chats.prompt(messages):
                raise TemplateError("a conversation is rendered otherwise than in training")
        spaced = _shapes(template, SPACED, SPACED)
        trims = any(template.rendered(messages) != chats.prompt(messages) for messages in spaced)
    except RowError as error:
        raise TemplateError(f"the chat template refuses a chat: {error}") from error
    return Rendering(template.go(), len(conversations), TRIMS if trims else "")


def _parts(chats: ChatRenderer) -> OllamaTemplate:
    """The constant texts, from what stands before, between and after the contents of two short chats."""
    asked: list[Message] = [{"role": "user", "content": USER}]
    answered: list[Message] = [*asked, {"role": "assistant", "content": ANSWER}]
    prompt = chats.prompt([*answered, {"role": "user", "content": SECOND}])
    first, to_answer, to_user, last = _between(prompt, USER, ANSWER, SECOND)
    after_user = _common_start([to_answer, last, _between(chats.text(asked), USER)[-1]])
    after_answer = _common_start([to_user, _between(chats.text(answered), USER, ANSWER)[-1]])
    befores = [first, to_user.removeprefix(after_answer)]
    with suppress(RowError):  # a template without system messages
        prompt = chats.prompt([{"role": "system", "content": SYSTEM}, *asked])
        opening, from_system, _ = _between(prompt, SYSTEM, USER)
        befores.append(from_system)
    user = Turn(_common_end(befores), after_user)
    start, more, *after_system = (text.removesuffix(user.before) for text in befores)
    turns = {"system": Turn(opening, *after_system)} if after_system else {}
    turns |= {"user": user, "assistant": Turn(to_answer.removeprefix(user.after), after_answer + more)}
    template = OllamaTemplate(turns, start, last.removeprefix(user.after))
    constant = [template.start, template.generation, *itertools.chain.from_iterable(turns.values())]
    if any("{{" in text or '"""' in text for text in constant):
        raise TemplateError("its texts cannot be written in a Modelfile")
    return template


def _between(text: str, *contents: str) -> list[str]:
    """The texts before, between and after contents that each occur once, in this order."""
    parts = re.split("|".join(contents), text)
    if re.findall("|".join(contents), text) != list(contents):
        raise TemplateError("the chat template changes what is said")
    return parts


def _common_start(texts: Sequence[str]) -> str:
    letters = zip(*texts, strict=False)
    return "".join(several[0] for several in itertools.takewhile(lambda each: len(set(each)) == 1, letters))


def _common_end(texts: Iterable[str]) -> str:
    return _common_start([text[::-1] for text in texts])[::-1]


def _shapes(template: OllamaTemplate, asked: str, answered: str) -> Iterator[list[Message]]:
    """Chats of one to three questions, with and without a system message."""
    openings = [[], [{"role": "system", "content": asked}]] if "system" in template.turns else [[]]
    turns = [{"role": role, "content": text} for role, text in (("user", asked), ("assistant", answered))]
    for opening, count in itertools.product(openings, (1, 2, 3)):
        yield [*opening, *(turns * count)[:-1]]


def _conversations(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Iterator[Sequence[Message]]:
    """What is asked in training rows, as Ollama would be asked: up to their last answer."""
    renderer = Renderer(recipe, tokenizer)
    for located in select(recipe, Silent()).train():
        if isinstance(located.row, Text):
            continue
        row = as_chat(located.row) if isinstance(located.row, Pair) else located.row
        messages = renderer.with_system(row).messages
        if row.tools or row.template_kwargs or not _plain(messages):
            raise TemplateError("rows use tools or settings of the chat template")
        yield messages[: max(index for index, each in enumerate(messages) if each["role"] == "assistant")]


def _plain(messages: Iterable[Message]) -> bool:
    """Whether messages are text alone."""
    return all(
        message.keys() <= {"role", "content", "train"} and message["role"] in TEXT_ROLES
        for message in messages
    )
