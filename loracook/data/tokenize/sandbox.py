"""A trial rendering of an untrusted template, in a process with limits on time, memory and output.

Run as a script: reads the template from standard input and prints what is wrong with it.
"""

import subprocess
import sys
from functools import cache

SECONDS = 2
MEMORY = 768 * 2**20
OUTPUT = 2**20
PROBE = "loracook probe"
TOO_MUCH = ("rendering takes too", "still not rendered", "ValueError: more than 1 MiB")
TURNS = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]


@cache
def template_fault(template: str) -> str:
    """What is wrong with a template, or "" if it renders a short chat within the limits."""
    command = [sys.executable, "-I", "-S", __file__, *sys.path]
    try:
        done = subprocess.run(command, input=template.encode(), capture_output=True, timeout=10 * SECONDS)
    except subprocess.TimeoutExpired:
        return "rendering takes too long"
    if done.returncode < 0:
        return f"still not rendered after {SECONDS} s"
    return done.stdout.decode("utf-8", "replace").strip() or ("rendering failed" if done.returncode else "")


def is_runaway(fault: str) -> bool:
    """Whether a fault is that rendering takes too much time, memory or text."""
    return fault.startswith(TOO_MUCH)


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _render(template: str) -> None:
    """Render a short chat; raises what the template raises, or ValueError for too much output."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Scope
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The {% generation %} block of chat templates, which does not change the text."""

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
    context = {"messages": TURNS, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    for piece in environment.from_string(template).generate(**context):
        length += len(piece)
        if length > OUTPUT:
            raise ValueError("more than 1 MiB of text for a short chat")


def _raise(message: str) -> None:
    raise ValueError(message)


def _main() -> int:
    sys.path[:] = sys.argv[1:]
    template = sys.stdin.buffer.read().decode("utf-8")
    import jinja2.sandbox  # noqa: F401  imported before the limits forbid writing its bytecode

    _limit()
    try:
        _render(template)
    except MemoryError:
        print("rendering takes too much memory")
    except Exception as error:  # noqa: BLE001, RUF100  a template may raise anything; it is printed
        print(f"{type(error).__name__}: {error}"[:300].replace("\n", " "))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
