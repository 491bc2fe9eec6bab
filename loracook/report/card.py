"""The model card: what was made of what, how much it helped, how to use it and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from loracook.errors import spell
from loracook.recipe.locations import is_local
from loracook.report.markdown import block, code, prose, table
from loracook.store.release import CHAT_TEMPLATE

if TYPE_CHECKING:
    from loracook.recipe.recipe import Recipe

MADE_BY = (
    "version", "name", "description", "base_model", "tokenizer", "dataset", "template", "quantization",
    "lora", "train", "evaluate", "merge",
)  # fmt: skip
SETTINGS = ("quantization", "lora", "train")


def model_card(
    recipe: Recipe,
    *,
    name: str,
    files: Collection[str],
    metrics: Mapping[str, Any],
    versions: Mapping[str, str],
) -> str:
    """The card as Markdown.

    Args:
        recipe: what was run.
        name: what the model is loaded by.
        files: the names of the files beside the card.
        metrics: what evaluate measured.
        versions: the packages that trained.
    """
    parts = [
        f"---\n{_front_matter(recipe)}---",
        f"# {prose(recipe.name)}",
        prose(recipe["description"]) if "description" in recipe else "",
        _what_it_is(recipe),
        _before_and_after(metrics),
        f"## How to use it\n\n{block(snippet(recipe, name, files), 'python')}",
        f"## How it was trained\n\n{table(('setting', 'value'), _settings(recipe))}",
        f"## Data\n\n{_data(recipe)}",
        f"## Versions\n\n{table(('package', 'version'), _versions(versions))}",
        f"## How to make it again\n\n{_again(recipe)}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def snippet(recipe: Recipe, name: str, files: Collection[str]) -> str:
    """Python that loads the model and lets it answer once."""
    evaluate = recipe.sections.get("evaluate", {})
    prompt = next(iter(evaluate.get("prompts", [])), "What can you do?")
    asked = _turns(recipe["template"], prompt) if CHAT_TEMPLATE in files else _text(prompt)
    lines = [
        *_loading(recipe, name),
        *asked,
        f"output = model.generate(**inputs, {_arguments(evaluate.get('generation', {}))})",
        "print(tokenizer.decode(output[0, inputs['input_ids'].shape[1] :], skip_special_tokens=True))",
    ]
    return "\n".join(lines)


def _loading(recipe: Recipe, name: str) -> list[str]:
    base, dtype = recipe["base_model"]["name_or_path"], recipe["base_model"]["dtype"]
    names = ["", f"name = {name!r}"]
    tokenizer = "tokenizer = AutoTokenizer.from_pretrained(name)"
    if recipe["push"]["what"] == "merged":
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            *(*names, tokenizer),
            "model = AutoModelForCausalLM.from_pretrained(name, dtype='auto')",
        ]
    if not is_local(recipe["base_model"]):
        return [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer",
            *(*names, tokenizer),
            f"model = AutoPeftModelForCausalLM.from_pretrained(name, dtype={dtype!r})",
        ]
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        *(*names, f"base = 'folder/of/the/base/model'  # {base!r} in the recipe", tokenizer),
        f"model = AutoModelForCausalLM.from_pretrained(base, dtype={dtype!r})",
        "if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # tokens were added",
        "    model.resize_token_embeddings(len(tokenizer))",
        "model = PeftModel.from_pretrained(model, name)",
    ]


def _text(prompt: str) -> list[str]:
    return [f"inputs = tokenizer({prompt!r}, return_tensors='pt')"]


def _turns(template: Mapping[str, Any], prompt: str) -> list[str]:
    system = [{"role": "system", "content": template["system"]}] if "system" in template else []
    return [
        f"messages = {[*system, {'role': 'user', 'content': prompt}]!r}",
        "inputs = tokenizer.apply_chat_template(",
        "    messages, add_generation_prompt=True, return_dict=True, return_tensors='pt'",
        ")",
    ]


def _arguments(generation: Mapping[str, Any]) -> str:
    settings = {"max_new_tokens": 128, **generation}
    # A base model's own settings do not know at which token the training let answers end.
    ends = ["eos_token_id=tokenizer.eos_token_id"]
    if "stop_strings" in settings:
        ends.append("tokenizer=tokenizer")
    return ", ".join([*(f"{key}={value!r}" for key, value in settings.items()), *ends])


def _front_matter(recipe: Recipe) -> str:
    adapter = recipe["push"]["what"] == "adapter"
    base = recipe["base_model"]
    data = list(dict.fromkeys(source["path"] for source in _sources(recipe) if not is_local(source)))
    matter = {
        **({} if is_local(base) else {"base_model": base["name_or_path"]}),
        **({"datasets": data} if data else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["loracook", "lora", "sft", "trl"],
    }
    return str(yaml.safe_dump(matter, sort_keys=False, allow_unicode=True))


def _what_it_is(recipe: Recipe) -> str:
    base = code(recipe["base_model"]["name_or_path"])
    if recipe["push"]["what"] == "merged":
        return f"The model {base} with a LoRA adapter merged into its weights, made with loracook."
    return f"A LoRA adapter for {base}, made with loracook. The base model is loaded along with it."


def _before_and_after(metrics: Mapping[str, Any]) -> str:
    base, adapter = metrics.get("base", {}), metrics.get("adapter", {})
    if not adapter:
        return ""
    rows = [
        (prose(name.replace("_", " ")), _number(base.get(name)), _number(adapter[name])) for name in adapter
    ]
    head = ("", "base model", "trained")
    seen = f"On {metrics['rows']} rows that were not trained on:\n\n" if metrics.get("rows") else ""
    return f"## Before and after\n\n{seen}{table(head, rows, align='---:')}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _settings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for section in SETTINGS:
        for key, value in recipe[section].items() if section in recipe else ():
            yield code(f"{section}.{key}"), code(spell(value))


def _data(recipe: Recipe) -> str:
    described = [_source(source) for source in _sources(recipe)]
    return "\n".join(f"- {text}" for text in described)


def _source(source: Mapping[str, Any]) -> str:
    told = {
        key: source[key] for key in ("name", "split", "revision", "format", "rows", "weight") if key in source
    }
    facts = ", ".join(f"{key} {code(spell(value))}" for key, value in told.items())
    return code(source["path"]) + (f" ({facts})" if facts else "")


def _sources(recipe: Recipe) -> list[Mapping[str, Any]]:
    dataset = recipe["dataset"]
    found: list[Mapping[str, Any]] = dataset.get("sources") or [dataset]
    return found


def _versions(versions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for package, version in sorted(versions.items()):
        if package != "platform" and version != "not installed":  # the machine is nobody's business
            yield code(package), code(version)


def _again(recipe: Recipe) -> str:
    sections = {name: recipe[name] for name in MADE_BY if name in recipe}
    plain = json.loads(json.dumps(sections))  # values that are shared would be written as YAML aliases
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return f"Save this as `recipe.yaml` and run `loracook run recipe.yaml`:\n\n{block(text, 'yaml')}"
