"""No template, and no row of data, makes rendering run on, fill the memory or write without end."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import loracook
import loracook.data as data
from loracook.data.tokenize.sandbox import RenderingError, RunawayError, limited
from loracook.errors import RecipeError
from loracook.progress import Silent
from tests.data.samples import chat, json_lines, recipe, tokenizer

SOURCE = Path(loracook.__file__).parent
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


def test_a_template_that_attacks_where_a_tool_is_called_is_stopped_there(tmp_path: Path) -> None:
    json_lines(tmp_path / "chat.jsonl", [chat("Soup?", "Leek.")])
    hostile = "{% for m in messages if m.tool_calls %}" + ATTACKS["memory"] + "{% endfor %}" + HARMLESS
    book = recipe(tmp_path, dataset={"path": "./chat.jsonl"}, template={"loss": "assistant"})
    made = data.with_template(book, tokenizer(chat_template=hostile))
    with pytest.raises(RecipeError, match="cannot render a row: rendering takes too much memory"):
        data.prepare(book, made, tmp_path / "cache", progress=Silent())


@pytest.mark.parametrize("template", ["{% include 'x' %}", f"{{{{ {'(' * 9999}1{')' * 9999} }}}}"])
def test_a_template_that_cannot_be_rendered_at_all_is_a_sentence(template: str, tmp_path: Path) -> None:
    json_lines(tmp_path / "chat.jsonl", [chat("Soup?", "Leek.")])
    book = recipe(tmp_path, dataset={"path": "./chat.jsonl"}, template={"loss": "assistant"})
    with pytest.raises(RecipeError, match=r"row 1 of chat.jsonl: chat template error: "):
        data.prepare(
            book,
            data.with_template(book, tokenizer(chat_template=template)),
            tmp_path / "cache",
            progress=Silent(),
        )


RENDERING = {"apply_chat_template", "render_jinja_template", "template_variables", "_get_template_variables"}
"""Functions of upstream that compile or render a chat template, and the one of ours that calls one."""
WITHIN = {
    "upstream.py: _get_template_variables(template)",
    "prepare.py: template_variables(encoder.tokenizer)",
}
"""Calls of those names: in a function that is only handed to `limited`, and of one that hands it there."""


def test_nothing_is_rendered_but_within_limits() -> None:
    calls = [
        (file.name, ast.unparse(call.func).rpartition(".")[2], ast.unparse(call))
        for file in SOURCE.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(call, ast.Call)
    ]
    assert {f"{file}: {call}" for file, name, call in calls if name in RENDERING} == WITHIN
    helpers = [
        file.name for file in SOURCE.rglob("*.py") if "trl.chat_template_utils" in file.read_text("utf-8")
    ]
    assert helpers == ["template.py"]
    asked = [call for _, name, call in calls if name == "get_training_chat_template"]
    assert asked == ["get_training_chat_template(template)"]


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
