"""The plan's counts of public models, from nothing but their config.json."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import loracook
from loracook.estimate.meta_model import meta_model
from tests.plans import config_recipe, invoked, plan

OPT = "facebook__opt-350m"
QV = ["q_proj", "v_proj"]
KNOWN: list[tuple[str, dict[str, Any], dict[str, Any], tuple[int, int, int]]] = [
    (OPT, {"r": 1, "target_modules": QV}, {}, (331_196_416, 98_304, 331_294_720)),
    (OPT, {"r": 128, "target_modules": QV}, {}, (331_196_416, 12_582_912, 343_779_328)),
    (
        "EleutherAI__gpt-neo-1.3B",
        {"r": 8, "target_modules": ["q_proj", "k_proj", "v_proj"]},
        {},
        (1_315_575_808, 2_359_296, 1_317_935_104),
    ),
    (
        "tiiuae__falcon-7b",
        {"r": 32, "target_modules": ["query_key_value"]},
        {"tokenizer": {"pad_token": "<|pad|>"}},
        (6_921_720_704, 9_437_184, 6_931_162_432),
    ),
    (
        "EleutherAI__gpt-neox-20b",
        {"r": 8, "target_modules": ["query_key_value"]},
        {"quantization": {"load_in_4bit": True}},
        (20_554_567_680, 8_650_752, 20_563_218_432),
    ),
    (
        "microsoft__phi-2",
        {"r": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "dense"]},
        {},
        (2_779_683_840, 10_485_760, 2_790_169_600),
    ),
    (
        "meta-llama__Llama-2-7b-hf",
        {"r": 64, "target_modules": "all-linear"},
        {},
        (6_738_415_616, 159_907_840, 6_898_323_456),
    ),
    (
        "HuggingFaceTB__SmolLM2-135M-Instruct",
        {"r": 16, "target_modules": "all-linear"},
        {},
        (134_515_008, 4_884_480, 139_399_488),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "lora", "sections", "counts"), KNOWN)
def test_public_models_are_counted_exactly(
    tmp_path: Path,
    config: str,
    lora: dict[str, Any],
    sections: dict[str, Any],
    counts: tuple[int, int, int],
) -> None:
    model = meta_model(
        loracook.load(config_recipe(tmp_path, config, lora, **sections)), tmp_path / "model", None
    )
    assert (model.base_parameters, model.counts.trainable, model.counts.all) == counts


def test_modules_are_grouped_by_pattern(tmp_path: Path) -> None:
    planned = plan(config_recipe(tmp_path, OPT, {"r": 8, "target_modules": QV}))
    assert planned["model"]["modules"] == {
        "decoder.layers.*.self_attn.v_proj": 24,
        "decoder.layers.*.self_attn.q_proj": 24,
    }


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    result = invoked(config_recipe(tmp_path, "google-t5__t5-small", {"r": 8}))
    assert "'t5' is an encoder-decoder; loracook trains causal language models" in str(result.exception)


def test_a_wrong_module_name_stops_the_plan_with_the_nearest_real_ones(tmp_path: Path) -> None:
    result = invoked(config_recipe(tmp_path, OPT, {"r": 8, "target_modules": ["q_proj", "v_pro"]}))
    assert str(result.exception).endswith(
        "lora.target_modules.1: 'v_pro' matches no module of this model; write 'v_proj' or 'q_proj' or 'k_proj'"
    )


def test_a_folder_with_a_config_alone_says_what_it_could_not_know(tmp_path: Path) -> None:
    lora = {"r": 8, "target_modules": QV}
    planned = plan(config_recipe(tmp_path, OPT, lora, tokenizer={"pad_token": "<|pad|>"}))
    assert planned["unknown"] == [
        "tokens and steps: the base model's folder has no tokenizer",
        "whether <|pad|> is a new token: counted as one",
    ]
    assert planned["tokens"] is None
    assert planned["model"]["added_tokens"] == 1
    assert planned["memory"]["peak_bytes"] > planned["memory"]["parts"]["weights"] > 0


@pytest.mark.parametrize(
    ("lora", "trained"),
    [
        ({}, False),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"modules_to_save": ["embed_tokens"]}, True),
        ({"target_modules": ["embed_tokens", "q_proj"]}, True),
        ({"trainable_token_indices": [32000]}, True),
    ],
)
def test_the_plan_says_whether_the_embeddings_of_new_tokens_are_trained(
    lora: dict[str, Any], trained: bool, tmp_path: Path
) -> None:
    tokens = {"pad_token": "<|pad|>", "extra_special_tokens": ["<|new|>"]}
    adapter = {"r": 8, "target_modules": QV, **lora}
    file = config_recipe(tmp_path, "meta-llama__Llama-2-7b-hf", adapter, tokenizer=tokens)
    advice = "" if trained else "; lora.modules_to_save would train them"
    notes = meta_model(loracook.load(file), tmp_path / "model", None).notes
    assert notes == (f"2 embedding rows added for new tokens{advice}",)


def test_a_missing_model_without_network_leaves_the_stages_and_says_what_to_do(tmp_path: Path) -> None:
    recipe = config_recipe(tmp_path, OPT, {"r": 8})
    recipe.write_text(recipe.read_text("utf-8").replace("./model", "someone/nothing"), "utf-8")
    planned = plan(recipe, "--offline")
    assert [stage["name"] for stage in planned["stages"]] == ["train"]
    [said] = planned["unknown"]
    assert said.startswith("model, steps, tokens and memory: ")
    assert said.endswith("with a network connection, run: hf download someone/nothing")


@pytest.mark.slow
def test_twenty_billion_parameters_are_planned_in_under_a_gigabyte(tmp_path: Path) -> None:
    file = config_recipe(
        tmp_path, "EleutherAI__gpt-neox-20b", {"r": 8, "target_modules": ["query_key_value"]}
    )
    script = (
        "import sys; from click.testing import CliRunner; from loracook.machine import memory;"
        "from loracook.cli.plan import command;"
        "assert CliRunner().invoke(command, [sys.argv[1]]).exit_code == 0;"
        "print(memory.peak('cpu'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 1 << 30


def test_what_is_unknown_of_several_plans_is_listed_below_the_table(tmp_path: Path) -> None:
    recipe = config_recipe(tmp_path, OPT, {"r": 8, "target_modules": QV})
    recipe.write_text(recipe.read_text("utf-8").replace("./model", "someone/nothing"), "utf-8")
    lines = invoked(recipe, recipe, "--offline").stdout.splitlines()
    assert lines[-1].startswith(f"{recipe}: unknown model, steps, tokens and memory: ")


def test_plans_side_by_side_are_headed_with_their_names_or_with_their_files_where_names_are_equal(
    tmp_path: Path,
) -> None:
    missing = {"base_model": {"name_or_path": "someone/nothing"}}
    first, twin = (config_recipe(tmp_path / folder, OPT, {"r": 8}, **missing) for folder in ("a", "b"))
    other = config_recipe(tmp_path / "c", OPT, {"r": 8}, name="other", **missing)
    heads = [invoked(first, file, "--offline").stdout.splitlines()[0].split() for file in (other, twin)]
    assert heads == [["kitchen", "other"], [str(first), str(twin)]]
