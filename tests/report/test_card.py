"""The model card: what it says, and that nobody's text does anything in it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

import loracook
from loracook.recipe.recipe import Recipe, load
from loracook.report.card import model_card, snippet
from loracook.report.markdown import block, code, prose, table
from tests.tiny_recipes import twin

RECIPE = """
version: 1
name: soup
description: Phi-2 taught to take orders
base_model: {name_or_path: microsoft/phi-2}
dataset: {sources: [{path: org/orders, rows: 200}, {path: ./rows.jsonl}]}
template: {system: Be brief.}
lora: {r: 4}
train: {max_steps: 2}
evaluate: {prompts: [A soup please], generation: {max_new_tokens: 9, do_sample: false}}
push: {repo_id: me/soup}
"""
CHAT = ("chat_template.jinja",)
METRICS = {
    "rows": {"loss": 60, "json_match": 20},
    "also_trained": 0,
    "also": {},
    "adapters": {},
    "base": {"loss": 2.13333, "json_match": 0.0},
    "adapter": {"loss": 0.2, "json_match": 0.93},
    "wins": {},
    "intervals": {"loss": {"difference": [-2.1, -1.75]}, "json_match": {"difference": [0.8, 1.0]}},
}
VERSIONS = {"trl": "1.16.0", "peft": "0.21.2", "bitsandbytes": "not installed", "platform": "Linux-6.1"}
COOKED: dict[str, dict[str, Any]] = {
    "opt-350m-lora": {"evaluate": {"generation": {"max_new_tokens": 4, "stop_strings": ["."]}}},
    "quickstart": {"evaluate": {"rows": 2}, "template": {"chat_template": "chatml"}},
}
"""Recipes on a base model without a chat template: one leaves it at that, one brings its own with its tokens."""
HOSTILE = "`````python\n---\n# 1. *a* _b_ [c](http://d) <script> | ${e} \\ \"'''\" @f www.g.h </code>"


def recipe(tmp_path: Path, **changes: Any) -> Recipe:
    """The recipe above with sections of it changed."""
    file = tmp_path / "soup.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(RECIPE) | changes))
    return load(file)


def card(cooked: Recipe) -> str:
    return model_card(cooked, name="me/soup", files=CHAT, metrics=METRICS, versions=VERSIONS)


def test_a_card_says_what_the_model_is_its_metrics_and_how_to_use_it(tmp_path: Path) -> None:
    told = card(recipe(tmp_path)).partition("## Training settings")[0]

    assert (
        told
        == """\
---
base_model: microsoft/phi-2
datasets:
- org/orders
library_name: peft
pipeline_tag: text-generation
tags:
- loracook
- lora
- sft
- trl
model-index:
- name: soup
  results:
  - task:
      type: text-generation
    dataset:
      name: org/orders
      type: org/orders
    metrics:
    - type: loss
      value: 0.2
      name: loss
    - type: json_match
      value: 0.93
      name: json match
    - type: loss
      value: 2.13333
      name: loss (base model)
    - type: json_match
      value: 0.0
      name: json match (base model)
---

# soup

Phi-2 taught to take orders

A LoRA adapter for `microsoft/phi-2`, trained with loracook. Loading it loads the base model, too.

## Evaluation

Measured on evaluation rows that were not trained on.

| metric | base model | trained | difference (95 % interval) | rows |
| --- | ---: | ---: | ---: | ---: |
| loss | 2.133 | 0.2 | better (-2.100 to -1.750) | 60 |
| json match | 0.0% | 93.0% | better (+80.0 to +100.0 points) | 20 |

## Usage

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

name = 'me/soup'
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoPeftModelForCausalLM.from_pretrained(name, dtype='bfloat16')
messages = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'A soup please'}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors='pt'
)
output = model.generate(**inputs, max_new_tokens=9, do_sample=False, eos_token_id=tokenizer.eos_token_id)
print(tokenizer.decode(output[0, inputs['input_ids'].shape[1] :], skip_special_tokens=True))
```

"""
    )


def test_a_card_says_how_it_was_trained_on_what_and_with_which_versions(tmp_path: Path) -> None:
    told = card(recipe(tmp_path))

    assert "| `lora.r` | `4` |\n" in told
    assert "| `train.learning_rate` | `0.0002` |\n" in told
    assert "- `org/orders` (split `train`, format `auto`, rows `200`, weight `1`)\n- `./rows.jsonl` (" in told
    assert "| package | version |\n| --- | --- |\n| `peft` | `0.21.2` |\n| `trl` | `1.16.0` |\n\n" in told


def test_the_recipe_on_a_card_trains_the_same_model(tmp_path: Path) -> None:
    cooked = recipe(tmp_path)
    again = tmp_path / "recipe.yaml"
    again.write_text(card(cooked).rpartition("```yaml\n")[2].removesuffix("```\n"))

    assert load(again).sections == {name: part for name, part in cooked.sections.items() if name != "push"}


def test_a_merged_model_is_loaded_by_transformers_alone(tmp_path: Path) -> None:
    merged = recipe(tmp_path, merge={}, push={"folder": "published", "what": "merged"})

    assert "library_name: transformers\n" in card(merged)
    assert snippet(merged, "./published", CHAT).splitlines()[:5] == [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        "name = './published'",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        "model = AutoModelForCausalLM.from_pretrained(name, dtype='auto')",
    ]


@pytest.fixture(scope="module", params=COOKED)
def cooked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose model has no chat template, and of one whose template brings tokens along."""
    folder = tmp_path_factory.mktemp(request.param)
    for what in ("adapter", "merged"):
        sections = COOKED[request.param] | {"merge": {}, "push": {"folder": what, "what": what}}
        loracook.run(twin(request.param, folder, **sections), folder / "runs")
    return folder


@pytest.mark.parametrize("what", ["adapter", "merged"])
def test_the_python_on_a_card_runs(
    cooked: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next((cooked / "runs").glob("[!.]*"))
    python = (run / what / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(run)
    exec(python.replace("path/to/base/model", str(cooked / "model")), {})
    assert capsys.readouterr().out.endswith("\n")
    assert ("apply_chat_template" in python) == (run.name == "quickstart")


def test_nothing_that_is_published_names_a_place_of_this_machine(cooked: Path) -> None:
    run = next((cooked / "runs").glob("[!.]*"))
    adapters = list(run.glob("train-*/adapter"))
    files = [file for folder in (*adapters, run / "adapter", run / "merged") for file in folder.iterdir()]
    assert {"adapter_config.json", "config.json", "tokenizer_config.json", "README.md"} <= {
        f.name for f in files
    }
    naming = [str(file) for file in files if str(cooked).encode() in file.read_bytes()]
    assert naming == []
    for adapter in adapters:
        assert "trained with loracook" in (adapter / "README.md").read_text("utf-8")


def test_a_local_base_model_is_not_named_as_one_on_the_hub(tmp_path: Path) -> None:
    local = recipe(tmp_path, base_model={"name_or_path": "package://dist/model.gguf"}, template={})

    assert "base_model" not in front_matter(card(local))
    assert snippet(local, "me/soup", ()).splitlines()[3:11] == [
        "name = 'me/soup'",
        "base = 'path/to/base/model'  # 'package://dist/model.gguf' in the recipe",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        "model = AutoModelForCausalLM.from_pretrained(base, dtype='bfloat16')",
        "if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # new tokens",
        "    model.resize_token_embeddings(len(tokenizer))",
        "model = PeftModel.from_pretrained(model, name)",
        "inputs = tokenizer('A soup please', return_tensors='pt')",
    ]


def test_a_prompt_that_the_tokenizer_would_change_is_asked_as_it_was_trained(tmp_path: Path) -> None:
    assert snippet(recipe(tmp_path), "me/soup", CHAT, exact="<s>A soup please").splitlines()[6:8] == [
        "# as trained: the tokenizer's own special tokens or generation prompt would differ",
        "inputs = tokenizer('<s>A soup please', add_special_tokens=False, return_tensors='pt')",
    ]


def test_the_metrics_of_a_card_are_on_the_data_that_evaluated(tmp_path: Path) -> None:
    local = {"path": "org/orders", "eval": {"path": "./held_out.jsonl"}}
    results = front_matter(card(recipe(tmp_path, dataset=local)))["model-index"][0]["results"]
    assert [result["dataset"] for result in results] == [{"name": "./held_out.jsonl", "type": "local"}]
    without = model_card(recipe(tmp_path), name="me/soup", files=CHAT, metrics={}, versions=VERSIONS)
    assert "model-index" not in front_matter(without)


@pytest.mark.parametrize(
    ("also_trained", "says"),
    [(3, "3 of which were trained on, too"), (None, "training rows were streamed")],
)
def test_a_card_does_not_call_rows_unseen_that_were_trained_on(
    also_trained: int | None, says: str, tmp_path: Path
) -> None:
    metrics = {**METRICS, "also_trained": also_trained}
    told = model_card(recipe(tmp_path), name="me/soup", files=CHAT, metrics=metrics, versions=VERSIONS)
    assert says in told
    assert "not trained on" not in told


@pytest.mark.parametrize(
    ("base", "trained", "said"),
    [
        ("trained", 0.0072, ("by 0.72% from those of the model that was trained", "all of it is rounding")),
        ("original", 0.0812, ("by 8.12% from those of the model that was trained", "are the original ones")),
        ("trained", None, ("by less than 0.01% from those of the base model with the adapter",)),
    ],
)
def test_a_card_says_how_far_the_merged_model_is_from_the_trained_one(
    base: str, trained: float | None, said: tuple[str, ...], tmp_path: Path
) -> None:
    differences = {"logits_difference": 8e-7, "logits_difference_from_trained": trained}
    merge = {"base": base, "prompts": 5, **differences}
    told = model_card(
        recipe(tmp_path), name="me/soup", files=CHAT, metrics={}, versions=VERSIONS, merge=merge
    )
    merging = told.split("## Merging\n\n")[1].split("\n\n")[0]
    assert [words for words in (*said, "less than 0.01%") if words not in merging] == []


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = recipe(
        tmp_path,
        description=HOSTILE,
        template={"system": HOSTILE},
        evaluate={"prompts": [HOSTILE]},
    )
    told = card(hostile)
    code_lines = snippet(hostile, "me/soup", CHAT)

    assert front_matter(told) == front_matter(card(recipe(tmp_path)))
    assert headings(told) == headings(card(recipe(tmp_path)))
    assert string_constants(code_lines).count(HOSTILE) == 2
    assert f"``````python\n{code_lines}\n``````" in told


def test_prose_is_one_line_without_markup_html_or_links() -> None:
    assert prose("1. a\n# b") == r"1\. a # b"
    assert prose("# <b> & [c](http://d) `e` www.f.g @h $i$") == (
        r"\# \<b\> \& \[c\](http:\//d) \`e\` www\.f.g \@h \$i\$"
    )
    assert prose("- \u202ea") == "\\- \\\\u202ea"


def test_code_ends_where_it_should() -> None:
    assert [code("a"), code("a`b"), code("`a``"), code("a\nb")] == [
        "`a`",
        "``a`b``",
        "``` `a`` ```",
        r"`a\nb`",
    ]
    assert block("```\na\u202e", "yaml") == "````yaml\n```\na\\u202e\n````"
    assert table(("a", "b"), [("`x|y`", "z")]) == "| a | b |\n| --- | --- |\n| `x\\|y` | z |"


def front_matter(text: str) -> Any:
    return yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))


def headings(text: str) -> list[str]:
    """The headings of a page, those in code blocks left out."""
    found: list[str] = []
    fence = ""
    for line in text.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if len(ticks) >= max(3, len(fence)):
            fence = "" if fence else ticks
        elif not fence and line.startswith("#"):
            found.append(line)
    return found


def string_constants(source: str) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
