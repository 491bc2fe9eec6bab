"""Where work tells how far it is."""

from typing import Any, Protocol


class Progress(Protocol):
    """Where a stage tells the user how far it is; the command line draws it, a library user may ignore it."""

    def begin(self, stage: str) -> None:
        """Take the name of the stage that starts now."""

    def end(self, record: dict[str, Any]) -> None:
        """Take the record of the stage that has just finished."""

    def note(self, text: str) -> None:
        """Take one finished sentence worth keeping on the screen."""

    def advance(self, done: int, total: int, text: str) -> None:
        """Take how much of the running work is done, in any unit (`total` 0 if unknown), and a state."""


class Silent:
    """The progress of those who do not want to see any."""

    def begin(self, *values: Any, **named: Any) -> None:
        """Drop what it is given, as the other methods do."""

    end = note = advance = begin


class Kept:
    """A progress that keeps the notes it hands on."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.notes = progress, list[str]()
        self.begin, self.end, self.advance = progress.begin, progress.end, progress.advance

    def note(self, text: str) -> None:
        """Keep a sentence and hand it on."""
        self.notes.append(text)
        self.progress.note(text)
