"""No template, and no row of data, makes rendering run on, fill the memory or write without end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import loracook.data as data
from loracook.data.tokenize.sandbox import RenderingError, RunawayError, limited
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import chat, json_lines, recipe, tokenizer

HARMLESS = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
ON_A_ROW = "{% if messages[0].content == 'attack' %}ATTACK{% endif %}" + HARMLESS
ATTACKS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "numbers": "{% set n = namespace(x=9) %}{% for a in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "power": "{{ (9 ** (9 ** (messages | length + 7))) % 2 }}",
    "memory": "{{ 'a' * 10 ** 12 }}",
    "text": "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
}


@pytest.mark.parametrize(
    ("attack", "own"), [*((attack, False) for attack in ATTACKS), ("loops", True), ("memory", True)]
)
def test_a_template_that_attacks_on_some_row_alone_is_stopped_there(
    attack: str, own: bool, tmp_path: Path
) -> None:
    json_lines(tmp_path / "chat.jsonl", [chat("Soup?", "Leek.")] * 3 + [chat("attack", "Leek.")] * 99)
    hostile = ON_A_ROW.replace("ATTACK", ATTACKS[attack])
    (tmp_path / "hostile.jinja").write_text(hostile)
    section = {"template": {} if own else {"chat_template": "./hostile.jinja"}}
    book = recipe(tmp_path, dataset={"path": "./chat.jsonl", "shuffle": False}, **section)
    made = data.with_template(book, tokenizer(chat_template=hostile if own else HARMLESS))
    with pytest.raises(RecipeError, match=r"template.chat_template: cannot render a row: rendering \w+"):
        data.prepare(book, made, tmp_path / "cache", progress=Silent())


def squared(number: int) -> int:
    return number * number


def wait(seconds: int) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_calls_go_on_after_one_was_stopped() -> None:
    assert limited(squared, number=3) == 9
    with pytest.raises(RunawayError, match="rendering takes more than 2 s"):
        limited(wait, seconds=30)
    with pytest.raises(RenderingError, match="modulo by zero"):
        limited(divmod_by_zero, number=3)
    assert limited(squared, number=4) == 16


def divmod_by_zero(number: int) -> Any:
    return divmod(number, 0)


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_renders_holds_nothing_that_this_process_has_open(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w"):
        assert len(limited(descriptors)) == 2  # its connection, and the folder that lists them


def parent() -> int:
    return os.getppid()


def test_a_fork_of_a_process_has_a_worker_of_its_own() -> None:
    ours = limited(parent)
    if not (child := os.fork()):
        os._exit(0 if limited(parent) == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (limited(parent), ours) == (os.getpid(), os.getpid())


def test_it_ends_with_the_process_that_it_renders_for() -> None:
    code = (
        "import os, signal; from loracook.data.tokenize.sandbox import limited\n"
        "print(limited(os.getpid), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    worker = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stdout)
    for _ in range(200):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail(f"process {worker} still runs")
