"""`loracook inspect` shows what a model is made of and what each rank costs, from its config alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loracook.cli.inspect import command
from loracook.errors import LoracookError
from tests.plans import CONFIGS

OPT = CONFIGS / "facebook__opt-350m"


def inspected(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(command, [*arguments, "--format", "json"])
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_six_ranks_of_opt_350m() -> None:
    found = inspected(str(OPT), "--target-modules", "q_proj,v_proj")
    assert [(rank["r"], rank["trainable"], rank["all"]) for rank in found["ranks"]] == [
        (1, 98_304, 331_294_720),
        (8, 786_432, 331_982_848),
        (16, 1_572_864, 332_769_280),
        (32, 3_145_728, 334_342_144),
        (64, 6_291_456, 337_487_872),
        (128, 12_582_912, 343_779_328),
    ]


def test_a_commit_in_the_hubs_cache_is_inspected_as_the_user_names_it(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--facebook--opt/snapshots/abc"
    snapshot.mkdir(parents=True)
    for file in OPT.iterdir():
        (tmp_path / f"models--facebook--opt/{file.name}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../{file.name}")
    (tmp_path / "link").symlink_to(snapshot)
    found = [inspected(str(place), "--r", "8")["parameters"] for place in (snapshot, tmp_path / "link")]
    assert found == [331_196_416] * 2


def test_modules_by_name_and_the_default() -> None:
    found = inspected(str(OPT), "--r", "8")
    assert found["modules"][4] == {
        "pattern": "model.decoder.layers.*.self_attn.k_proj",
        "kind": "Linear",
        "number": 24,
        "parameters": 1_049_600,
        "adaptable": True,
    }
    assert found["adaptable"] == {
        "embed_tokens": 1,
        "embed_positions": 1,
        "project_out": 1,
        "project_in": 1,
        "k_proj": 24,
        "v_proj": 24,
        "q_proj": 24,
        "out_proj": 24,
        "fc1": 24,
        "fc2": 24,
    }
    assert found["target_modules"] == found["default_targets"] == ["q_proj", "v_proj"]
    assert found["parameters"] == 331_196_416


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("gpt2", "c_atn", "'c_atn' matches no module of this model; write 'c_attn'"),
        ("gpt2", "x.y.c_attn", "'x.y.c_attn' matches no module of this model; write 'c_attn'"),
        (
            "gpt2",
            "lm_head",
            "'lm_head' is not a module that LoRA can adapt; write one of c_attn, c_fc, c_proj, wpe, wte",
        ),
        (
            "mamba",
            "out_proj",
            "'out_proj' is not a module that LoRA can adapt; write 'dt_proj' or 'x_proj' or 'in_proj'",
        ),
    ],
)
def test_an_unknown_module_name_is_refused_with_the_valid_ones(
    kind: str, name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), "utf-8")
    result = CliRunner().invoke(command, [str(tmp_path), "--target-modules", name])
    assert isinstance(result.exception, LoracookError)
    assert str(result.exception).startswith(said)


def test_a_name_may_select_a_single_module() -> None:
    found = inspected(str(OPT), "--r", "8", "--target-modules", "layers.0.self_attn.q_proj")
    assert found["ranks"][0]["trainable"] == 8 * (1024 + 1024)


def test_a_path_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "none")])
    assert str(result.exception) == f"'{tmp_path / 'none'}' does not exist"


def test_a_model_that_peft_cannot_adapt_ends_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 0}', "utf-8")
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(result.exception, LoracookError)
    assert "not found in the base model" in str(result.exception)
