"""`loracook chat` on a terminal of its own and from a pipe, with tiny models."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from loracook.cli.chat import command
from loracook.cli.dialog import SIDES, Dialog, Printed
from loracook.data import with_template
from loracook.errors import RecipeError, clean, clean_lines
from tests import processes
from tests.data.samples import recipe, tokenizer
from tests.records import finished_stage
from tests.tiny_families import tiny
from tests.tiny_models import write_twin

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def cooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained recipe, whose template has no system role and whose answers are long."""
    folder = tmp_path_factory.mktemp("cooked")
    (folder / "own.jinja").write_text(TEMPLATE)
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Soup."}]}
        for n in range(4)
    ]
    write_twin(folder / "model", "opt")
    sections = {
        "version": 1,
        "name": "kitchen",
        "base_model": {"name_or_path": "./model", "dtype": "float32"},
        "dataset": {"path": "./chat.jsonl", "limits": {"truncated": 1.0, "missing_eos": 1.0}},
        "template": {"chat_template": "./own.jinja", "loss": "last_turn"},
        "lora": {"r": 4, "lora_alpha": 64},
        "train": {"max_steps": 1, "max_length": 64, "learning_rate": 0.01, "bf16": False},
        "evaluate": {"prompts": ["Why?"], "generation": {"max_new_tokens": 400}},
        "merge": {},
    }
    (folder / "recipe.yaml").write_text(json.dumps(sections))
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = processes.run("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_a_chat_on_a_terminal_streams_and_ctrl_c_ends_an_answer_alone(cooked: Path) -> None:
    base, adapter = (clean(generated(cooked)[side][:4]) for side in SIDES)
    terminal = processes.Terminal("chat", "kitchen", cwd=cooked)
    assert "loading base model and adapter\n" in terminal.until("adapter> ")

    terminal.type("Why?\n")
    terminal.until(f"Why?\n{adapter}")
    terminal.type("\x03")
    assert "max_new_tokens" not in terminal.until("\nadapter> ")

    terminal.type("/reset\n/both\nWhy?\n")
    terminal.until(f"both> Why?\nbase: {base}")
    terminal.type("\x03")
    terminal.until(f"\nadapter: {adapter}")
    terminal.type("\x03")
    assert "max_new_tokens" not in terminal.until("\nboth> ")

    terminal.type("/system Be kind.\n")
    assert "there is no system message here, nothing is changed" in terminal.until("both> ")
    terminal.type("half a question")
    terminal.until("half a question")
    for patience in (2, 4, 8, 120):  # Python sees a signal just before readline waits with the next key alone
        terminal.type("\x03")
        with suppress(AssertionError):
            terminal.until("Ctrl-D or /exit leaves\nboth> ", patience)
            break
    else:
        pytest.fail("Ctrl-C does not drop a line")
    terminal.type("/base\n")
    terminal.until("base> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def generated(folder: Path) -> dict[str, Any]:
    """The answers that evaluation generated."""
    [line] = next(folder.glob("runs/kitchen/evaluate-*/generations.jsonl")).read_text().splitlines()
    answers: dict[str, Any] = json.loads(line)
    return answers


@pytest.mark.slow
def test_a_pipe_gets_answers_alone(cooked: Path) -> None:
    short = ("--set", "evaluate.generation.max_new_tokens=8")
    answers = [
        ask("recipe.yaml", *short, *options, cwd=cooked, typed="Why?\n")
        for options in ((), ("--merged",), ("--base",))
    ]
    expected = generated(cooked)
    for answer, side in zip(answers, ("adapter", "adapter", "base"), strict=True):
        assert answer.exit_code == 0, answer.output
        assert clean_lines(expected[side]).startswith(answer.stdout.removesuffix("\n"))
        assert answer.stderr.endswith("\n(cut after 8 tokens: max_new_tokens)\n")
    whole = ask("runs/kitchen", cwd=cooked, typed="Why?").stdout
    assert whole == clean_lines(expected["adapter"]) + "\n"


@pytest.mark.slow
def test_libraries_print_nothing_beside_the_merged_model_s_answers(cooked: Path) -> None:
    chat = [sys.executable, "-m", "loracook", "chat", "kitchen", "--merged"]
    done = subprocess.run(chat, cwd=cooked, input="Why?\n", capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if not line.startswith("(cut after")] == []


@pytest.mark.slow
def test_a_reader_that_has_gone_ends_the_chat(cooked: Path) -> None:
    loracook = f"printf 'Why?\\nWhy?\\n' | {sys.executable} -m loracook chat kitchen"
    shell = f"{loracook} | head -c 3; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=cooked, capture_output=True, text=True)
    assert (done.stdout[3:], done.stderr) == ("0\n", "")


@pytest.mark.slow
def test_what_cannot_be_talked_to_is_named(cooked: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(cooked, tmp_path / "kitchen", symlinks=True)
    run = folder / "runs" / "kitchen"

    def said(*arguments: str) -> str:
        done = ask(*arguments, cwd=folder, typed="")
        return str(done.exception) if done.exit_code == 1 else done.output

    assert "'soup' is neither a recipe nor a run in 'runs'" in said("soup")
    assert "use one of --base and --merged" in said("kitchen", "--base", "--merged")
    assert "is finished; run: loracook run recipe.yaml" in said("recipe.yaml", "--set", "lora.r=3")
    model = next(run.glob("merge-*/model/model.safetensors"))
    model.write_bytes(model.read_bytes()[:-1])
    assert "the run has no merged model" in said("kitchen", "--merged")
    kept = next(run.glob("train-*/recipe.yaml"))
    text = kept.read_text()
    kept.write_text(text.replace("../../../model", "../../../../elsewhere"))
    assert "recipe.yaml is corrupt" in said("kitchen")
    kept.unlink()
    assert "recipe.yaml is missing" in said("kitchen")


@pytest.mark.parametrize("model", ["/model", "../../../../model", "../../../link"])
def test_the_recipe_in_a_run_folder_reaches_no_further_than_the_folder_of_all_runs_lies_in(
    model: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "model")
    sections = {"base_model": {"name_or_path": model}, "dataset": {"path": "org/rows"}, "lora": {"r": 4}}
    text = json.dumps({"version": 1, "name": "soup", **sections})
    finished_stage(tmp_path / "here" / "runs" / "soup", "train-01234567", {"recipe.yaml": text})
    done = ask("soup", cwd=tmp_path / "here", typed="")
    assert isinstance(done.exception, RecipeError)
    assert "base_model.name_or_path" in str(done.exception)
    assert "--allow-path" in str(done.exception)


def test_a_run_that_keeps_no_recipe_is_named_by_its_recipe(tmp_path: Path) -> None:
    finished_stage(tmp_path / "runs" / "soup", "train-01234567")
    done = ask("soup", cwd=tmp_path, typed="")
    assert str(done.exception).endswith("has no recipe.yaml; name the recipe that was run instead")


def ask(*arguments: str, cwd: Path, typed: str) -> Result:
    """The outcome of `loracook chat` in a folder, with what is typed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        return CliRunner().invoke(command, arguments, input=typed)


def dialog(folder: Path, template: str = "chatml", **sections: Any) -> Dialog:
    """A dialog with a model that nobody trained."""
    section = {"prompts": ["?"], "generation": {"max_new_tokens": 6}}
    book = recipe(
        folder,
        dataset={"path": "./rows.jsonl"},
        template={"chat_template": template},
        **(sections or {"evaluate": section}),
    )
    tokens = with_template(book, tokenizer())
    torch.manual_seed(0)
    causal = AutoModelForCausalLM.from_config(tiny("llama"))
    causal.resize_token_embeddings(max(len(tokens), 512))
    tuned = get_peft_model(causal, LoraConfig(r=2, init_lora_weights=False)).eval()
    return Dialog(book, tuned, tokens, sides=SIDES, chosen=("adapter",))


def typed(talk: Dialog, *lines: str) -> None:
    """Let a dialog read lines from a pipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
        talk.run()


def test_both_sides_answer_the_same_prompt_and_the_adapter_s_answer_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = dialog(tmp_path)
    typed(talk, "Why?")
    adapter = capsys.readouterr().out
    typed(talk, "/reset", "/base", "Why?")
    base = capsys.readouterr().out
    typed(talk, "/reset", "/both", "Why?")
    assert capsys.readouterr().out == f"base: {base}adapter: {adapter}"
    assert base != adapter
    turns = [turn["content"] for turn in talk.talk.messages]
    assert turns[0] == "Why?"
    assert len(turns) == 2
    typed(talk, "/adapter", "Why?")
    assert len(talk.talk.messages) == 4


def test_commands_say_what_they_did_and_other_lines_are_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = dialog(tmp_path, template="chatml")
    typed(talk, "/system", "/system Be kind.", "/system", "/nothing", "", "  ", "/help", "/exit", "Why?")
    done = capsys.readouterr()
    assert done.out == ""
    assert done.err.startswith(
        "system message: none\nsystem message: Be kind.\nno command '/nothing'; /help lists them\n/base "
    )
    assert [turn["role"] for turn in talk.talk.messages] == ["system"]
    typed(talk, "/reset", "/etc/hosts has what?", " /help")
    assert [turn["content"] for turn in talk.talk.messages[::2]] == ["/etc/hosts has what?", " /help"]


def test_plain_text_is_answered_prompt_by_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = dialog(tmp_path, template="none")
    typed(talk, "The soup", "The soup", "/system Be kind.", "/system")
    done = capsys.readouterr()
    first, second = done.out[: len(done.out) // 2], done.out[len(done.out) // 2 :]
    assert first == second != ""
    assert "no chat template: each prompt stands by itself" in done.err
    assert done.err.endswith("system message: none\n")


def test_a_conversation_longer_than_the_model_s_positions_is_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = dialog(tmp_path, template="none")
    positions = talk.causal.config.max_position_embeddings
    typed(talk, "soup " * positions, "soup")
    done = capsys.readouterr()
    assert f"and this model {positions:,} positions; /reset forgets it" in done.err
    assert done.out.count("\n") >= 1
    room = len(talk.talk.prompt_ids("soup")) + 2
    talk.causal.get_base_model().config.max_position_embeddings = room
    typed(talk, "soup")
    assert capsys.readouterr().err == "(cut after 2 tokens: the model has no more positions)\n"


def test_a_recipe_without_evaluation_answers_by_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = dialog(tmp_path, description="It has no evaluation.")
    typed(talk, "Why?")
    assert "(cut after 128 tokens: max_new_tokens)" in capsys.readouterr().err


SECRETS = (
    "hf_abcdefghijklmnopqrst", "api_org_abcdefghijklmnop", "sk-proj-abcdefghijklmnopqrst", "sk-" + "a" * 60 + "9",
    "ghp_abcdefghijklmnop", "github_pat_abcdefghijklmnop", "glpat-abcdefghijklmnop", "AKIAABCDEFGHIJKLMNOP",
    "AIzaabcdefghijklm", "xoxb-abcdefghijklm", "pypi-AgEabcdefghijkl",
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_printed_is_cleaned_in_whatever_parts_it_comes(
    size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = "".join(f"s{'s' * 200}-{secret}, {secret}{'a' * 200}\n" for secret in SECRETS)
    text = f"a\x1b[2J b\u202ec\n{secrets} and 汤\x07 so"
    printed = Printed()
    for start in range(0, len(text), size):
        printed.add(text[start : start + size])
    printed.end()
    assert capsys.readouterr().out == clean_lines(text) + "\n"


def test_text_that_is_no_secret_does_not_wait_for_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    printed = Printed()
    for part in ("Soup", "Soup", " ", "as", "s" * 200):
        printed.add(part)
        print("|", end="")
    assert capsys.readouterr().out == f"Soup|Soup| ||as{'s' * 100}|"
