"""Rendering a stranger's template once in a process with limits on time, memory and output.

Run as a script: the template comes on standard input, what is wrong with it goes to standard output.
"""

from __future__ import annotations

import subprocess
import sys

SECONDS = 2
MEMORY = 768 * 2**20
OUTPUT = 2**20
TURNS = [{"role": "user", "content": "loracook probe"}, {"role": "assistant", "content": "loracook probe"}]


def complaint(template: str) -> str:
    """What is wrong with a template, empty when it renders a short chat within the limits."""
    command = [sys.executable, "-I", "-S", __file__, *sys.path]
    try:
        done = subprocess.run(command, input=template.encode(), capture_output=True, timeout=10 * SECONDS)
    except subprocess.TimeoutExpired:
        return "it takes too long"
    if done.returncode < 0:
        return f"it was stopped after {SECONDS} s"
    return done.stdout.decode("utf-8", "replace").strip() or ("" if done.returncode == 0 else "it failed")


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _render(template: str) -> None:
    """Render a short chat piece by piece; raises what the template raises, or ValueError for a long text."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Scope
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The generation mark of chat templates, which changes nothing in the text."""

        tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

        def parse(self, parser):  # type: ignore[no-untyped-def]
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda format: "today"}
    length = 0
    given = {"messages": TURNS, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    for piece in environment.from_string(template).generate(**given):
        length += len(piece)
        if length > OUTPUT:
            raise ValueError("it writes over 1 MiB for a short chat")


def _raise(message: str) -> None:
    raise ValueError(message)


def _main() -> int:
    sys.path[:] = sys.argv[1:]
    template = sys.stdin.buffer.read().decode("utf-8")
    import jinja2.sandbox  # noqa: F401  before files can no longer be written

    _limit()
    try:
        _render(template)
    except MemoryError:
        print("it takes too much memory")
    except Exception as error:
        print(f"{type(error).__name__}: {error}"[:300].replace("\n", " "))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
