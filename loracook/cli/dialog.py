"""What is typed and answered in a chat: lines and commands in, answers out as they are written."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import click

from loracook import data, model
from loracook.data.eval_prompts import Asker
from loracook.data.read.rows import RowError
from loracook.errors import SECRET, LoracookError, clean_lines, quote
from loracook.machine.signals import on_interrupt
from loracook.model.streaming import stream
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import with_defaults

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDES = ("base", "adapter")
COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
UNFINISHED = re.compile(r"(?<![A-Za-z0-9])[Aaghpsx][\w-]*\Z", re.ASCII)
"""The end of a text that may become a secret, by the letters that SECRET begins with."""
LONGEST = 100
"""Characters after which every secret is known for one."""
HELP = """\
/base         answer with the base model
/adapter      answer with the adapter
/both         answer with one after the other; the adapter's answer goes into the history
/system TEXT  set the system message; alone, show it
/reset        forget the conversation, and the system message that was set
/help         show this
/exit         leave, as Ctrl-D does
Ctrl-C ends an answer. A line that begins with a space is no command."""


class Dialog:
    """A conversation with the sides of a loaded model, of which those chosen answer."""

    def __init__(
        self,
        recipe: Recipe,
        causal: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        sides: tuple[str, ...],
        chosen: tuple[str, ...],
    ) -> None:
        self.causal, self.tokenizer, self.sides, self.chosen = causal, tokenizer, sides, chosen
        self.start = self.talk = data.Conversation(Asker(recipe, tokenizer))
        self.section = recipe.sections.get("evaluate") or with_defaults({"evaluate": {}})["evaluate"]
        self.ends, self.stop = data.end_ids(tokenizer), threading.Event()

    def run(self) -> None:
        """Answer each line up to the end of input, or `/exit`."""
        terminal = sys.stdin.isatty()
        with on_interrupt(lambda *_: self.stop.set()) if terminal else nullcontext():
            for line in self._typed() if terminal else sys.stdin:
                if command := COMMAND.fullmatch(line.strip()) if line.startswith("/") else None:
                    if command[1] == "exit":
                        return
                    self._obey(command[1], command[2])
                elif line.strip():
                    self._answer(line.removesuffix("\n"))

    def _typed(self) -> Iterator[str]:
        """The lines that are typed; Ctrl-C drops one."""
        with suppress(ImportError):  # some builds of Python have none; it edits lines in input()
            import readline  # noqa: F401
        note(f"talking to {self._name}; /help lists commands")
        while True:
            try:
                with on_interrupt(signal.default_int_handler):
                    line = input(f"{self._name}> ")
            except KeyboardInterrupt:
                note("\nCtrl-D or /exit leaves")
            except EOFError:
                click.echo()
                return
            else:
                yield line

    @property
    def _name(self) -> str:
        return "both" if len(self.chosen) > 1 else self.chosen[0]

    def _obey(self, name: str, text: str | None) -> None:
        if name in self.sides or (name == "both" and len(self.sides) > 1):
            self.chosen = self.sides if name == "both" else (name,)
        elif name in (*SIDES, "both"):
            note("the merged model is alone; to talk to base model and adapter, leave out --merged")
        elif name == "reset":
            self.talk = self.start
        elif name == "system":
            self._system(text)
        elif name == "help":
            note(HELP)
        else:
            note(f"no command {quote('/' + name)}; /help lists them")

    def _system(self, text: str | None) -> None:
        if text is None:
            note(f"system message: {self.talk.system or 'none'}")
            return
        try:
            self.talk = self.talk.with_system(text)
        except RowError as error:
            note(f"there is no system message here, nothing is changed ({error})")

    def _answer(self, text: str) -> None:
        """Answer a message with each of the chosen sides; the last answer goes into the history."""
        try:
            prompt = self.talk.prompt_ids(text)
        except (RowError, LoracookError) as error:
            note(f"cannot ask this: {error}")
            return
        positions = model.most_positions(self.causal)
        room = None if positions is None else positions - len(prompt)
        if room is not None and room < 1:
            said = f"the conversation has {len(prompt):,} tokens, and this model {positions:,} positions"
            note(f"{said}; /reset forgets it")
            return
        *_, last = [self._side(side, prompt, room) for side in self.chosen]
        self.talk = self.talk.answered(text, last)

    def _side(self, side: str, prompt: list[int], room: int | None) -> str:
        """What one side answers, printed while it is written."""
        settings = self.section["generation"]
        if room is not None:
            settings = settings | {"max_new_tokens": min(settings["max_new_tokens"], room)}
        if len(self.chosen) > 1:
            click.echo(f"{side}: ", nl=False)
        self.stop.clear()
        printed = Printed()
        with self.causal.disable_adapter() if side == "base" else nullcontext():
            answer = stream(
                self.causal,
                self.tokenizer,
                prompt,
                ends=self.ends,
                settings=settings,
                seed=self.section["seed"],
                on_text=printed.add,
                stopped=self.stop.is_set,
            )
        printed.end()
        if answer.cut:
            limit = settings["max_new_tokens"]
            reason = "the model has no more positions" if limit == room else "max_new_tokens"
            note(f"(cut after {limit:,} tokens: {reason})")
        return str(self.tokenizer.decode(answer.ids))


class Printed:
    """Text on standard output, cleaned as it comes; what may become a secret waits for the rest of it."""

    def __init__(self) -> None:
        self.waiting = ""

    def add(self, text: str) -> None:
        """Print what is no part of a secret, or all of one."""
        text = self.waiting + text
        unfinished = UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        if not SECRET.search(text, end):
            end = max(end, len(text) - LONGEST)
        self.waiting = text[end:]
        if end:
            click.echo(clean_lines(text[:end]), nl=False)

    def end(self) -> None:
        """Print the rest, and end the line."""
        click.echo(clean_lines(self.waiting))


def note(text: str) -> None:
    """Print something that is no answer."""
    click.echo(clean_lines(text), err=True)
