"""`loracook init` looks at the model's tokenizer and the first rows, and writes a recipe that runs at once."""

from __future__ import annotations

import csv
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import AutoTokenizer

from loracook.cli import commands
from loracook.errors import LoracookError
from loracook.machine.devices import device_here
from loracook.recipe.recipe import Recipe, load
from tests.data.samples import chat, json_lines
from tests.tiny_models import LINES, write_twin

INSTRUCT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
WITHOUT_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + INSTRUCT
)
REWRITING = INSTRUCT.replace(
    "m.content +", "m.content + ('!' if loop.last and m.role == 'assistant' else '') +"
)
ENDLESS = INSTRUCT.replace("+ eos_token", "")
PAIRS = [{"question": f"{number}: {line}", "answer": line[:20]} for number, line in enumerate(LINES * 5)]
CHAT, SYSTEM = chat("Why?", "So.", "And?", "No."), {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without a chat template."""
    return write_twin(tmp_path_factory.mktemp("twin") / "model", "llama")


@pytest.fixture
def folder(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a new user, with the model and room for rows."""
    (tmp_path / "model").mkdir()
    for file in twin.iterdir():
        (tmp_path / "model" / file.name).hardlink_to(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORACOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def instruct(template: str) -> None:
    """Give the model in the working folder a chat template."""
    tokenizer = AutoTokenizer.from_pretrained("model")
    tokenizer.chat_template = template
    for file in Path("model").glob("*token*"):
        file.unlink()
    tokenizer.save_pretrained("model")


def ran(*arguments: str) -> str:
    """What a command prints, which ends well."""
    result = CliRunner().invoke(commands, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def init(rows: Any, file: str = "rows.jsonl") -> tuple[str, Recipe]:
    """What `init` says of rows, and the recipe that it writes."""
    json_lines(Path(file), rows)
    return ran("init", "soup", "--model", "model", "--data", file), load("soup.yaml")


@pytest.mark.parametrize(
    ("rows", "format", "columns"),
    [
        ([CHAT], "messages", {}),
        ([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}], "sharegpt", {}),
        ([{"dialog": CHAT["messages"]}], "messages", {"messages": "dialog"}),
        ([{"conversations": CHAT["messages"]}], "sharegpt", {}),
        ([{"chat": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}], "sharegpt", {"conversations": "chat"}),
        (PAIRS, "prompt_completion", {"prompt": "question", "completion": "answer"}),
        ([{"query": "a", "response": "b"}], "prompt_completion", {"prompt": "query", "completion": "response"}),
        ([{"input": "a", "output": "b"}], "prompt_completion", {"prompt": "input", "completion": "output"}),
        ([{"Question": "a", "Answer": "b"}], "prompt_completion", {"prompt": "Question", "completion": "Answer"}),
        ([{"prompt": "a", "response": "b"}], "prompt_completion", {"completion": "response"}),
        ([{"id": 1, "frage, laut": "a", "antwort": "b"}], "prompt_completion",
         {"prompt": "frage, laut", "completion": "antwort"}),
        ([{"instruction": "a", "context": "", "response": "b"}, {"instruction": "a", "context": "c", "response": "b"}],
         "alpaca", {"input": "context", "output": "response"}),
        ([{"question": "a", "answer": ""}, {"question": "c", "answer": "d"}], "prompt_completion",
         {"prompt": "question", "completion": "answer"}),
        ([{"quote": "Soup of the day."}], "text", {"text": "quote"}),
    ],
)  # fmt: skip
def test_format_and_columns_are_those_of_the_first_rows(
    folder: Path, rows: list[Any], format: str, columns: dict[str, str]
) -> None:
    instruct(INSTRUCT)
    said, recipe = init(rows)
    assert (recipe["dataset"]["format"], recipe["dataset"].get("columns", {})) == (format, columns)
    assert said.startswith(f"data      format {format}")


@pytest.mark.parametrize(
    ("own", "row", "chosen", "said"),
    [
        (INSTRUCT, CHAT, None, "the model's own"),
        (REWRITING, CHAT, "chatml", "chatml, since the model's own fails: cannot mask: the chat template rewrites earlier turns"),
        (REWRITING, PAIRS[0], None, "the model's own"),
        (WITHOUT_SYSTEM, {"messages": [SYSTEM, *CHAT["messages"]]}, "chatml",
         "chatml, since the model's own fails: chat template error: no system role"),
        (ENDLESS, CHAT, "chatml", "chatml, since the model's own fails: no end-of-turn (EOS) token in the loss"),
        (None, CHAT, "plain", "plain, since the model has none"),
        (None, PAIRS[0], "plain", "plain, since the model has none"),
        (None, {"text": "Soup."}, None, "none; the rows are plain text"),
    ],
)  # fmt: skip
def test_the_models_own_template_is_used_where_a_mask_can_be_had_from_it(
    folder: Path, own: str | None, row: Any, chosen: str | None, said: str
) -> None:
    if own:
        instruct(own)
    printed, recipe = init([row] * 3)
    assert recipe["template"].get("chat_template") == chosen
    assert f"template  {said}\n" in printed


@pytest.mark.parametrize(
    ("row", "loss"),
    [
        (CHAT, "assistant"),
        (PAIRS[0], "assistant"),
        ({"prompt": CHAT["messages"][:3], "completion": CHAT["messages"][3:]}, "completion"),
        ({"text": "Soup."}, None),
    ],
)
def test_the_loss_is_that_of_the_rows(folder: Path, row: Any, loss: str | None) -> None:
    instruct(INSTRUCT)
    assert init([row] * 3)[1]["template"].get("loss") == loss


def test_max_length_covers_the_first_rows_within_the_models_positions(folder: Path) -> None:
    instruct(INSTRUCT)
    assert init([{"text": "soup of the day! " * 200}])[1]["train"]["max_length"] == 2048
    config = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").unlink()
    Path("model/config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    Path("soup.yaml").unlink()
    assert init(PAIRS)[1]["train"]["max_length"] == 512


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "are for DPO; for SFT on the chosen"),
        ([{"a": "one", "b": "two", "c": "three"}], "no format fits"),
        ([{"question;answer": "Why?;So."}], "no format fits"),
    ],
)
def test_what_cannot_be_used_is_said_and_left_to_the_user(folder: Path, rows: list[Any], said: str) -> None:
    printed, recipe = init(rows)
    assert "data      not looked at: " in printed
    assert said in printed
    assert recipe["dataset"]["format"] == "auto"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({"messages": [{"role": "customer", "content": "a"}, {"role": "agent", "content": "b"}]}), "unknown role: 'customer'"),
        ("", "no readable rows in './rows.jsonl'"),
        (json.dumps({"prompt": "Why?", "completion": ""}), "column 'completion' has no text"),
        (None, "'rows.jsonl' does not exist; check the path"),
    ],
)  # fmt: skip
def test_no_recipe_is_written_that_preview_would_refuse(folder: Path, content: str | None, said: str) -> None:
    if content is not None:
        Path("rows.jsonl").write_text(content)
    done = CliRunner().invoke(
        commands, ["init", "soup", "--model", "model", "--data", "rows.jsonl"], standalone_mode=False
    )
    assert isinstance(done.exception, LoracookError) or done.return_value == 2
    assert said in done.output + str(done.exception)
    assert "soup.yaml" not in done.output
    assert not Path("soup.yaml").exists()


def test_a_recipe_that_cannot_be_written_leaves_nothing(folder: Path) -> None:
    Path("rows.jsonl").write_text('{"text": "Soup"}\n')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        done = CliRunner().invoke(commands, ["init", "soup", "--model", "./model", "--data", "./rows.jsonl"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write 'soup.yaml'" in str(done.exception)
    assert not Path("soup.yaml").exists()


def test_the_precision_is_that_which_doctor_advises(folder: Path) -> None:
    said, recipe = init(PAIRS)
    slow = device_here().bfloat16_advice
    assert recipe["base_model"]["dtype"] == (
        "float32" if "set base_model.dtype: float32" in slow else "bfloat16"
    )
    assert (recipe["train"].get("bf16") is False) == (
        "train.bf16: false" in slow and device_here().kind == "cpu"
    )
    assert ("machine " in said) == bool(slow)


def test_one_row_is_trained_and_none_held_out(folder: Path) -> None:
    recipe = init([PAIRS[0]])[1]
    assert "fraction" not in recipe["dataset"].get("eval", {})
    assert "── row " in ran("preview", "soup.yaml", "--rows", "1")


def test_without_the_training_stack_it_writes_what_it_can(folder: Path) -> None:
    json_lines(Path("rows.jsonl"), PAIRS)
    heavy = ["torch", "transformers", "trl", "datasets", "huggingface_hub", "numpy", "pyarrow", "jinja2"]
    code = (
        f"import sys; sys.modules |= dict.fromkeys({heavy}); from loracook.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "init", "soup", "--model", "./model", "--data", "rows.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data      format prompt_completion, prompt = question, completion = answer\n" in done.stdout
    assert (
        'model     not looked at: transformers is not installed; run: pip install "loracook[train]"\n'
        in done.stdout
    )
    assert load("soup.yaml")["dataset"]["columns"] == {"prompt": "question", "completion": "answer"}


def test_places_outside_are_allowed_now_and_in_the_next_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_lines(Path("rows.jsonl"), PAIRS)
    Path("project").mkdir()
    monkeypatch.chdir("project")
    places = ["--model", str(folder / "model"), "--data", str(folder / "rows.jsonl")]
    refused = CliRunner().invoke(commands, ["init", "soup", *places])
    assert "or allow it: --allow-path" in str(refused.exception)
    said = ran("init", "soup", *places, "--allow-path", "..")
    assert said.endswith("next: loracook validate soup.yaml --allow-path=..\n")
    assert ran("validate", "soup.yaml", "--allow-path=..") == "1 checked, 0 invalid\n"


@pytest.mark.slow
def test_the_day_of_a_new_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instruct(INSTRUCT)
    for name in (".git", "data", "recipes"):
        Path(name).mkdir()
    with open("data/faq.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(PAIRS[:6])
    monkeypatch.chdir("recipes")
    ran("init", "faq", "--model", "../model", "--data", "../data/faq.csv")
    assert ran("validate", "faq.yaml") == "1 checked, 0 invalid\n"
    assert "── row " in ran("preview", "faq.yaml", "--rows", "1")
    assert "train" in ran("plan", "faq.yaml")
    shown = ran("run", "faq.yaml")
    assert re.search(r"\n  loss      \S+ in the last step\n  eval loss \S+ on 1 evaluation row\n", shown), (
        shown
    )
    assert "compare the answers" in shown
    text = Path("faq.yaml").read_text("utf-8")
    Path("faq.yaml").write_text(text.replace("learning_rate: 2e-4", "learning_rate: 1e-4"), "utf-8")
    assert "train" in ran("run", "faq.yaml", "--only", "train")
    assert len(list(Path("runs/faq").glob("train-*/adapter"))) == 2
