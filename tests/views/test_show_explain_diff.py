"""The effective recipe, one key of it, and two recipes side by side, each value with who decided it."""

from __future__ import annotations

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from loracook.errors import LoracookError
from loracook.recipe.recipe import Recipe, load
from loracook.recipe.schema import all_keys, part_at
from loracook.recipe.source import parse
from loracook.recipe.yaml_values import rows, scalar
from loracook.views.diff import diff
from loracook.views.explain import explain
from loracook.views.show import as_json, as_yaml, effective

VALID = sorted((Path(__file__).parents[1] / "recipes" / "valid").glob("*.yaml"))
SHARED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
CHILD = """\
extends: parent.yaml
name: child
lora: {r: 4}
train:
  max_steps: 10
"""
PARENT = """\
version: 1
base_model: {name_or_path: org/model, dtype: float16}
dataset:
  sources:
    - path: org/a
    - {path: ./b.jsonl, rows: 5}
lora: {r: 8, target_modules: [q_proj, v_proj]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "child.yaml").write_text(CHILD)
    (tmp_path / "parent.yaml").write_text(PARENT)
    return relative(tmp_path, "train.seed=7")


def relative(folder: Path, *overrides: str) -> Recipe:
    with chdir(folder):
        return load("child.yaml", overrides)


def test_show_names_the_origin_of_every_value(recipe: Recipe) -> None:
    shown = [line.split("  # ") for line in as_yaml(recipe).splitlines()]
    assert [[part.rstrip() for part in line] for line in shown][:20] == [
        ["version: 1", "parent.yaml:1"],
        ["name: child", "child.yaml:2"],
        ["base_model:"],
        ["  name_or_path: org/model", "parent.yaml:2"],
        ["  dtype: float16", "parent.yaml:2"],
        ["  revision: main", "upstream"],
        ["dataset:"],
        ["  split: train", "loracook"],
        ["  format: auto", "loracook"],
        ["  threads: all", "loracook"],
        ["  sources:"],
        ["    - path: org/a", "parent.yaml:5"],
        ["      split: train", "loracook"],
        ["      format: auto", "loracook"],
        ["      weight: 1", "loracook"],
        ["      threads: all", "loracook"],
        ["    - path: ./b.jsonl", "parent.yaml:6"],
        ["      split: train", "loracook"],
        ["      format: auto", "loracook"],
        ["      rows: 5", "parent.yaml:6"],
    ]
    assert ["  r: 4", "child.yaml:3"] in [[part.rstrip() for part in line] for line in shown]
    assert ["  seed: 7", "--set:1"] in [[part.rstrip() for part in line] for line in shown]


@pytest.mark.parametrize("file", VALID + SHARED, ids=lambda file: file.stem)
def test_what_show_prints_is_a_recipe_that_means_the_same(file: Path, tmp_path: Path) -> None:
    recipe = load(file)
    shown = tmp_path / file.name
    shown.write_text(as_yaml(recipe))
    assert load(shown).sections == effective(recipe)[0]


def test_show_as_json_holds_values_and_origins(recipe: Recipe) -> None:
    shown = json.loads(as_json(recipe))
    assert shown["recipe"]["lora"]["r"] == 4
    assert shown["origins"]["lora.r"] == "child.yaml:3"
    assert shown["origins"]["dataset.sources.1.rows"] == "parent.yaml:6"


@pytest.mark.parametrize(
    "value",
    ["plain", "no", "1e5", "0x1", "", " x", "x ", "a: b", "a #b", "#", "- a", "[a]", "'", '"', "a\nb", "\t", "é",
     "a,b", "null", "~", ".5", "{x}", "*a", "&a", "!t", "%", "@", "`", "2024-01-01", "1:30", "\u200d", "-", "?", "a:"],
)  # fmt: skip
def test_every_text_reads_back_as_itself(value: str) -> None:
    for data in ({"a": value}, {"a": [value, value]}, {"a": [{"b": value}]}, {value or "k": 1}):
        text = "\n".join(line for line, _ in rows(data))
        assert parse(text, "a.yaml").data == data


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, 1e-5, 1e22, True, False, [], {}, [[1, 2], [3]], {"a": {"b": []}}]
)
def test_every_value_reads_back_as_itself(value: Any) -> None:
    assert parse("\n".join(line for line, _ in rows({"a": value})), "a.yaml").data == {"a": value}
    assert scalar(True) == "true"


def test_explain_says_meaning_bounds_origin_and_where_it_goes(recipe: Recipe) -> None:
    assert explain(recipe, "lora.r") == (
        "lora.r: 4  # child.yaml:3\n"
        f"{part_at(('lora', 'r'))['description']}\n"
        "Type: an integer from 1 to 4096; default: 16 (loracook), unless start_from is set\n"
        "Examples: 16, 64\n"
        "Passed as peft.LoraConfig(r=4)"
    )


def test_explain_says_what_a_key_is_that_the_recipe_leaves_out(recipe: Recipe) -> None:
    assert (
        explain(recipe, "quantization.load_in_4bit").splitlines()[0] == "quantization.load_in_4bit is not set"
    )
    assert (
        explain(recipe, "dataset.sources.1.rows").splitlines()[0]
        == "dataset.sources.1.rows: 5  # parent.yaml:6"
    )


@pytest.mark.parametrize(
    ("key", "goes"),
    [
        ("lora", "Passed to peft.LoraConfig(…)"),
        ("lora.target_modules", "Passed as peft.LoraConfig(target_modules=[q_proj, v_proj])"),
        ("lora.target_modules.0", "Part of peft.LoraConfig(target_modules=…)"),
        ('lora.rank_pattern."a.b"', "Part of peft.LoraConfig(rank_pattern=…)"),
        ("lora.loraplus.loraplus_lr_ratio", "Passed as peft.optimizers.create_loraplus_optimizer(loraplus_lr_ratio=…)"),
        ("train.lr_scheduler_kwargs.num_cycles", "Part of trl.SFTConfig(lr_scheduler_kwargs=…)"),
        ("train.early_stopping.early_stopping_patience",
         "Passed as transformers.EarlyStoppingCallback(early_stopping_patience=…)"),
        ("merge.dtype", "Passed as transformers.AutoModelForCausalLM.from_pretrained(dtype=…)"),
        ("dataset.where.lang", "Used by loracook itself"),
        ("lora.layers_to_transform", "Type: an integer from 0 to 4095 or a list"),
        ("dataset.where.lang", "Type: a string or a number or a boolean or a list"),
        ("evaluate.metrics", "Type: a list of any of exact_match, contains, regex, json_match, rouge, chrf"),
        ("extends", "extends: parent.yaml  # child.yaml:1"),
    ],
)  # fmt: skip
def test_explain_says_what_a_key_takes_and_where_it_goes(recipe: Recipe, key: str, goes: str) -> None:
    assert goes in explain(recipe, key).splitlines()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.lr", "did you mean 'train.learning_rate'?"),
        ("lora.learning_rate", "did you mean 'train.learning_rate'?"),
        ("lroa", "did you mean 'lora'?"),
        ("frobnicate", "run 'loracook schema' to list all keys"),
    ],
)
def test_explain_helps_with_a_key_that_is_not_there(recipe: Recipe, key: str, meant: str) -> None:
    with pytest.raises(LoracookError) as caught:
        explain(recipe, key)
    assert str(caught.value) == f"unknown key '{key}'; {meant}"


def test_every_key_can_be_explained(recipe: Recipe) -> None:
    for path, part in all_keys():
        key = ".".join(map(str, path))
        assert part["description"] in explain(recipe, key)


def test_diff_names_changed_values_with_both_origins_and_what_follows(tmp_path: Path, recipe: Recipe) -> None:
    after = relative(tmp_path, "train.seed=7", "lora.r=16", "train.gradient_accumulation_steps=4", "dataset.sources=[{path: org/c}]",
                     "train.max_steps=20")  # fmt: skip
    assert diff(recipe, after).splitlines() == [
        "dataset.sources: [{path: org/a, split: train, format: auto, weight: 1, threads: all}, {path: ./b.jsonl, split: "
        "train, format: auto, rows: 5, weight: 1, threads: all}] (parent.yaml:4) → [{path: org/c, split: train, format: "
        "auto, weight: 1, threads: all}] (--set:4)",
        "lora.r: 4 (child.yaml:3) → 16 (--set:2)",
        "train.max_steps: 10 (child.yaml:5) → 20 (--set:5)",
        "train.gradient_accumulation_steps: 1 (upstream) → 4 (--set:3)",
        "effect on a run:",
        "  effective batch size (per device): 4 → 16",
        "  max tokens per step (per device): 4,096 → 16,384",
        "  max optimizer steps (one device): 10 → 20",
        "  trainable params: 4 times as many",
    ]


def test_diff_of_the_same_meaning_in_other_words_is_none(tmp_path: Path, recipe: Recipe) -> None:
    flat = as_yaml(recipe).replace("./b.jsonl", '"./b.jsonl"') + "\n# a comment\n"
    (tmp_path / "flat.yaml").write_text(flat)
    assert diff(recipe, load(tmp_path / "flat.yaml")) == "no difference in effective values"


def test_what_an_adapter_to_start_from_decides_is_not_shown_as_a_default(tmp_path: Path) -> None:
    rounds = [{"r": 8, "lora_alpha": 16}, {"start_from": "org/adapter"}]
    files = [tmp_path / f"{number}.json" for number in (1, 2)]
    for file, lora in zip(files, rounds, strict=True):
        named = {"base_model": {"name_or_path": "org/model"}, "dataset": {"path": "org/rows"}}
        file.write_text(json.dumps({"version": 1, "name": "soup"} | named | {"lora": lora}))
    first, second = map(load, files)
    assert not {"r", "lora_alpha", "lora_dropout"} & set(json.loads(as_json(second))["recipe"]["lora"])
    assert explain(second, "lora.r").startswith("lora.r is not set")
    assert "lora.start_from" in diff(first, second)
