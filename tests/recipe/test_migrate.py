"""Recipes are started from a commented one, and other tools' spellings are rewritten as ours."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from loracook.cli import commands
from loracook.errors import MachineError
from loracook.recipe.foreign_keys import OUR_PATHS, TRANSLATED, translate
from loracook.recipe.migrate import migrated, moves
from loracook.recipe.recipe import load
from loracook.recipe.schema import part_at
from loracook.recipe.schema_errors import check
from loracook.recipe.source import parse

THEIRS = """\
# a recipe of another tool
version: 1
base_model: org/model # the base
torch_dtype: bf16

dataset:
  path: org/rows
# the adapter
lora_r: 8 # rank
lora_target_modules: q_proj, v_proj
lora:
  # stays
  lora_alpha: 16
quantization_bit: 4
train:
  lr: 1e-4 # fast
  num_epochs: 3
"""
OURS = """\
# a recipe of another tool
version: 1
base_model:
  name_or_path: org/model # the base
  dtype: bfloat16

dataset:
  path: org/rows
# the adapter
lora:
  # stays
  lora_alpha: 16
  r: 8 # rank
  target_modules:
    - q_proj
    - v_proj
train:
  learning_rate: 1e-4 # fast
  num_train_epochs: 3
quantization:
  load_in_4bit: true
"""


def test_other_spellings_are_rewritten_and_comments_stay() -> None:
    text = migrated(THEIRS, moves(THEIRS, "a.yaml")[0], "a.yaml")
    assert parse(text, "a.yaml").data == parse(OURS, "a.yaml").data
    for comment in (
        "# a recipe of another tool",
        "# the base",
        "# the adapter",
        "# rank",
        "# stays",
        "# fast",
    ):
        assert text.count(comment) == 1


def test_a_flat_file_s_keys_move_into_the_one_section_that_has_them() -> None:
    flat = "version: 1\nlora_alpha: 32 # twice r\nlearning_rate: 1e-4\nseed: 1\n"
    planned, conflicts = moves(flat, "a.yaml")
    assert [str(move) for move in planned] == [
        "lora_alpha → lora.lora_alpha: 32",
        "learning_rate → train.learning_rate: 0.0001",
    ]
    assert conflicts == []
    text = migrated(flat, planned, "a.yaml")
    assert text == "version: 1\nseed: 1\nlora:\n  lora_alpha: 32 # twice r\ntrain:\n  learning_rate: 1e-4\n"


def test_what_is_ours_already_is_left_alone() -> None:
    assert moves(OURS, "a.yaml") == ([], [])


@pytest.mark.parametrize("name", sorted([*OUR_PATHS, *TRANSLATED]))
def test_no_spelling_breaks_a_recipe_whatever_its_value(name: str) -> None:
    for value in ("8", "true", "text", "[a]", "{a: 1}", "", "1e-4"):
        text = f"version: 1\n{name}: {value}\n"
        parse(migrated(text, moves(text, "a.yaml")[0], "a.yaml"), "a.yaml")


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("bits: 16", "remove it; leaving it out has the same effect"),
        ("val_set_size: 0", "remove it; leaving it out has the same effect"),
        ("val_set_size: 0.0", "remove it; leaving it out has the same effect"),
        ("group_by_length: false", "remove it; leaving it out has the same effect"),
        ("lora_target_linear: false", "remove it; leaving it out has the same effect"),
        ("completion_only_loss: false", "use 'loss' under 'template:'"),
    ],
)
def test_a_switch_that_is_off_elsewhere_is_never_turned_on(line: str, instead: str) -> None:
    text = f"version: 1\n{line}\n"
    [(name, value)] = parse(line, "a.yaml").data.items()
    translation = translate(name, value)
    assert translation is not None
    assert translation.advice(()) == instead
    assert moves(text, "a.yaml") == ([], [])


@pytest.mark.parametrize("value", ["no", "fp32"])
def test_no_mixed_precision_is_none_here_too(value: str) -> None:
    [move], _ = moves(f"mixed_precision: {value}\n", "a.yaml")
    assert str(move) == "mixed_precision → train.bf16: false"


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        ({"answer": None}, """'{answer: null}' is not a string; put it in double quotes: "{answer}\""""),
        ({"a": ["b"]}, "'{a: [b]}' is not a string; use a value such as '\"{answer}\"'"),
    ],
)
def test_braces_that_yaml_reads_as_a_mapping_are_to_be_quoted(value: dict[str, object], instead: str) -> None:
    part = part_at(("template", "completion"))
    assert part is not None
    assert [problem.message for problem in check(value, part, ())] == [instead]


def test_migrate_rewrites_the_file_and_says_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(THEIRS)
    ran = CliRunner().invoke(commands, ["migrate", "a.yaml"])
    assert ran.output.splitlines()[-3:] == [
        "train.lr → train.learning_rate: 0.0001",
        "train.num_epochs → train.num_train_epochs: 3",
        "7 changed, 1 left to fix; next: loracook validate a.yaml",
    ]
    assert load("a.yaml")["lora"]["r"] == 8


def test_an_escape_that_a_recipe_needs_stays_one() -> None:
    text = 'lora_r: 8\ndescription: "\\u200d joins"\n'
    assert (
        migrated(text, moves(text, "a.yaml")[0], "a.yaml") == 'description: "\\u200d joins"\nlora:\n  r: 8\n'
    )


def test_a_section_that_is_left_empty_keeps_its_comment() -> None:
    text = "dataset:  # rows\n  num_epochs: 16\nlora:\n  max_samples: 5\n"
    planned, _ = moves(text, "a.yaml")
    assert migrated(text, planned[:1], "a.yaml") == (
        "dataset: {} # rows\nlora:\n  max_samples: 5\ntrain:\n  num_train_epochs: 16\n"
    )
    assert migrated(text, planned, "a.yaml") == (
        "dataset:  # rows\n  rows: 5\nlora: {}\ntrain:\n  num_train_epochs: 16\n"
    )


def test_a_line_that_cannot_be_rewritten_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("lora_r: 8\nname\t: soup\n")
    assert str(CliRunner().invoke(commands, ["migrate", "a.yaml"]).exception) == (
        "a.yaml:2:5: ruamel.yaml, which preserves the comments, cannot parse this; rewrite this line"
    )
    assert Path("a.yaml").read_text().startswith("lora_r")


def test_what_stands_before_the_text_and_how_lines_end_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_bytes(b"\xef\xbb\xbflora_r: 8\r\n")
    CliRunner().invoke(commands, ["migrate", "a.yaml"])
    assert Path("a.yaml").read_bytes() == b"\xef\xbb\xbflora:\r\n  r: 8\r\n"


TWICE = """\
version: 1
base_model: org/model
lora_target_modules: [q_proj]
lora_target_linear: true
lora_r: 8
train:
  batch_size: 128 # total
  micro_batch_size: 4 # per device
  learning_rate: 1e-4 # old
  lr: 2e-4 # the real one
"""
ONCE = """\
version: 1
base_model:
  name_or_path: org/model
lora_target_linear: true
train:
  per_device_train_batch_size: 128 # total
  micro_batch_size: 4 # per device
  learning_rate: 1e-4 # old
  lr: 2e-4 # the real one
lora:
  target_modules: [q_proj]
  r: 8
"""


def test_a_value_whose_place_is_taken_stays_and_is_said() -> None:
    planned, kept = moves(TWICE, "a.yaml")
    assert migrated(TWICE, planned, "a.yaml") == ONCE
    assert [str(one) for one in kept] == [
        "lora_target_linear is left as it is, since lora.target_modules is set too; remove one of the two",
        "train.micro_batch_size is left as it is, since train.per_device_train_batch_size is set too; "
        "remove one of the two",
        "train.lr is left as it is, since train.learning_rate is set too; remove one of the two",
    ]


@pytest.mark.parametrize("section", ["", "8", "[a]"])
def test_nothing_moves_into_what_is_no_mapping(section: str) -> None:
    text = f"version: 1\nlora: {section}\nlora_r: 8\n"
    planned, [kept] = moves(text, "a.yaml")
    assert (planned, str(kept)) == (
        [],
        "lora_r is left as it is, since lora is set too; remove one of the two",
    )


def test_migrate_keeps_the_link_the_permissions_and_the_line_ends(tmp_path: Path) -> None:
    file, link = tmp_path / "a.yaml", tmp_path / "link.yaml"
    file.write_bytes(THEIRS.replace("\n", "\r\n").encode())
    file.chmod(0o600)
    link.symlink_to(file)
    assert CliRunner().invoke(commands, ["migrate", str(link)]).exit_code == 0
    written = file.read_bytes()
    assert b"name_or_path" in written
    assert written.count(b"\n") == written.count(b"\r\n")
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o600)


def test_a_recipe_that_cannot_be_written_is_said_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(THEIRS)
    Path(".a.yaml.part").mkdir()
    ran = CliRunner().invoke(commands, ["migrate", "a.yaml"])
    assert isinstance(ran.exception, MachineError)
    assert str(ran.exception) == "cannot write 'a.yaml': Is a directory; the file is unchanged"
    assert Path("a.yaml").read_text() == THEIRS


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_what_the_terminal_cannot_spell_is_escaped(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.yaml").write_text(THEIRS)
    loracook = str(Path(sys.executable).parent / "loracook")
    ran = subprocess.run(
        [loracook, "migrate", "a.yaml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert b"7 changed, 1 left to fix" in ran.stdout
    assert encoding == "ascii" or b"train.lr \\u2192 train.learning_rate: 0.0001" in ran.stdout


def test_init_writes_a_recipe_that_validates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("{}\n")
    ran = CliRunner().invoke(commands, ["init", "mine", "--model", "org/model", "--data", "rows.jsonl"])
    assert ran.output.endswith("wrote mine.yaml; next: loracook validate mine.yaml\n")
    recipe = load("mine.yaml")
    assert (recipe.name, recipe["dataset"]["path"], recipe.warnings) == ("mine", "./rows.jsonl", ())


@pytest.mark.parametrize("name", ["2024", "null", "true", "1e5"])
def test_init_names_a_run_like_a_number_or_a_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(commands, ["init", name, "--model", "org/model", "--data", "org/rows"])
    assert ran.output.endswith(f"wrote {name}.yaml; next: loracook validate {name}.yaml\n")
    assert load(f"{name}.yaml").name == name


def test_init_asks_on_a_terminal(tmp_path: Path) -> None:
    loracook = str(Path(sys.executable).parent / "loracook")
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        os.execv(loracook, [loracook, "init", "mine"])
    os.write(terminal, b"org/model\norg/rows\n")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert load(tmp_path / "mine.yaml")["dataset"]["path"] == "org/rows"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["mine", "--data", "org/rows"], "--model is required where there is no terminal to ask on"),
        (["mine", "--model", "org/model"], "--data is required where there is no terminal to ask on"),
        (["../mine", "--model", "a/b", "--data", "c/d"], "'../mine' is not a valid run name; use a name such as 'my-recipe'"),
        (["there", "--model", "a/b", "--data", "c/d"], "'there.yaml' already exists; choose another name"),
        (["mine", "--model", "/a", "--data", "c/d"], "'/a' does not exist; check the path"),
        (["mine", "--model", "/usr", "--data", "c/d"],
         "'/usr' is an absolute path; use a path starting with './'"),
    ],
)  # fmt: skip
def test_init_never_asks_without_a_terminal_and_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").touch()
    ran = CliRunner().invoke(commands, ["init", *arguments])
    assert str(ran.exception) == line
    assert sorted(tmp_path.iterdir()) == [tmp_path / "there.yaml"]
