"""The model card: base model and data, metrics before and after, usage, and the recipe to reproduce it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from loracook.errors import spell
from loracook.recipe.locations import is_local, local_paths
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import schema
from loracook.report.generations import figures, measured_on
from loracook.report.markdown import block, code, prose, table
from loracook.report.shareable import shareable
from loracook.report.task_scores import TaskScore, as_markdown
from loracook.store.release import CHAT_TEMPLATE

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

PT = "return_tensors='pt'"


def model_card(
    recipe: Recipe,
    *,
    name: str,
    files: Collection[str],
    metrics: Mapping[str, Any],
    versions: Mapping[str, str],
    tasks: Sequence[TaskScore] = (),
    merge: Mapping[str, Any] | None = None,
    exact: str | None = None,
) -> str:
    """The card as Markdown.

    Args:
        recipe: the recipe of the run.
        name: the repository id or path that loads the model.
        files: the names of the files published with the card.
        metrics: the metrics of the evaluate stage, {} without one.
        versions: the package versions of the training run.
        tasks: the scores of the lm_eval stage.
        merge: the result of the merge stage where the merged model is published.
        exact: the `usage_prompt` as trained, special tokens included, where the tokenizer's call differs.
    """
    recipe = shareable(recipe)
    sections = [name for name in ("quantization", "lora", "train") if name in recipe]
    values = ((f"{name}.{key}", spell(value)) for name in sections for key, value in recipe[name].items())
    settings = [map(code, entry) for entry in values]
    data = "\n".join(_data(recipe))
    stack = sorted(entry for entry in versions.items() if entry[0] != "platform")  # which is private
    packages = [map(code, entry) for entry in stack if entry[1] != "not installed"]
    parts = [
        f"---\n{_front_matter(recipe, metrics)}\n---",
        f"# {prose(recipe.name)}",
        prose(recipe["description"]) if "description" in recipe else "",
        _summary(recipe),
        _evaluation(metrics),
        f"## Tasks of lm-evaluation-harness\n\n{as_markdown(tasks)}" if tasks else "",
        _merged(merge) if merge else "",
        f"## Usage\n\n{block(snippet(recipe, name, files, exact=exact), 'python')}",
        f"## Training settings\n\n{table(('setting', 'value'), settings)}",
        f"## Training data\n\n{data}",
        f"## Framework versions\n\n{table(('package', 'version'), packages)}",
        f"## Reproduce\n\n{_reproduction(recipe)}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def usage_prompt(recipe: Recipe) -> str:
    """The prompt that the card's code asks."""
    evaluate = recipe.sections.get("evaluate", {})
    return str(next(iter(evaluate.get("prompts", [])), "What can you do?"))


def snippet(recipe: Recipe, name: str, files: Collection[str], *, exact: str | None = None) -> str:
    """Python code that loads the model and generates one answer."""
    generation = recipe.sections.get("evaluate", {}).get("generation", {})
    answer = [
        f"output = model.generate(**inputs, {_arguments(generation)})",
        "print(tokenizer.decode(output[0, inputs['input_ids'].shape[1] :], skip_special_tokens=True))",
    ]
    return "\n".join([*_loading(recipe, name), *_inputs(recipe, files, exact), *answer])


def _inputs(recipe: Recipe, files: Collection[str], exact: str | None) -> list[str]:
    prompt = usage_prompt(recipe)
    if exact is not None:
        note = "# as trained: the tokenizer's own special tokens or generation prompt would differ"
        return [note, f"inputs = tokenizer({exact!r}, add_special_tokens=False, {PT})"]
    if CHAT_TEMPLATE in files:
        return _chat_inputs(recipe["template"], prompt)
    return [f"inputs = tokenizer({prompt!r}, {PT})"]


def _loading(recipe: Recipe, name: str) -> list[str]:
    base, dtype = recipe["base_model"]["name_or_path"], recipe["base_model"]["dtype"]
    auto = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    assignment = ["", f"name = {name!r}"]
    tokenizer = "tokenizer = AutoTokenizer.from_pretrained(name)"
    if recipe["push"]["what"] == "merged":
        model = "model = AutoModelForCausalLM.from_pretrained(name, dtype='auto')"
        return [auto, *assignment, tokenizer, model]
    if not is_local(recipe["base_model"]):
        return [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer",
            *(*assignment, tokenizer),
            f"model = AutoPeftModelForCausalLM.from_pretrained(name, dtype={dtype!r})",
        ]
    return [
        *("from peft import PeftModel", auto),
        *(*assignment, f"base = 'path/to/base/model'  # {base!r} in the recipe", tokenizer),
        f"model = AutoModelForCausalLM.from_pretrained(base, dtype={dtype!r})",
        "if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # new tokens",
        "    model.resize_token_embeddings(len(tokenizer))",
        "model = PeftModel.from_pretrained(model, name)",
    ]


def _chat_inputs(template: Mapping[str, Any], prompt: str) -> list[str]:
    system = [{"role": "system", "content": template["system"]}] if "system" in template else []
    return [
        f"messages = {[*system, {'role': 'user', 'content': prompt}]!r}",
        "inputs = tokenizer.apply_chat_template(",
        f"    messages, add_generation_prompt=True, return_dict=True, {PT}",
        ")",
    ]


def _arguments(generation: Mapping[str, Any]) -> str:
    settings = [f"{key}={value!r}" for key, value in {"max_new_tokens": 128, **generation}.items()]
    stop = ["tokenizer=tokenizer"] if "stop_strings" in generation else []
    # A base model's own generation settings may name another EOS token than the one trained.
    return ", ".join([*settings, "eos_token_id=tokenizer.eos_token_id", *stop])


def _front_matter(recipe: Recipe, metrics: Mapping[str, Any]) -> Any:
    from huggingface_hub import ModelCardData

    base = recipe["base_model"]
    data = list(dict.fromkeys(source["path"] for source in _sources(recipe) if not is_local(source)))
    return ModelCardData(
        base_model=None if is_local(base) else base["name_or_path"],
        datasets=data or None,
        library_name="peft" if recipe["push"]["what"] == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["loracook", "lora", "sft", "trl"],
        model_name=recipe.name,
        eval_results=_eval_results(recipe, metrics) or None,
    ).to_yaml(line_break="\n")


def _eval_results(recipe: Recipe, metrics: Mapping[str, Any]) -> list[EvalResult]:
    """The metrics of both models in the hub's model-index, those of the base model named as such."""
    from huggingface_hub import EvalResult

    places = (recipe["dataset"].get("eval", {}), *_sources(recipe))
    source = next(place for place in places if "path" in place)
    kind = "local" if is_local(source) else source["path"]
    task = {"task_type": "text-generation", "dataset_name": source["path"], "dataset_type": kind}
    suffixes = {"adapter": "", "base": " (base model)"}
    return [
        EvalResult(**task, metric_type=metric, metric_name=_words(metric) + suffix, metric_value=value)
        for side, suffix in suffixes.items()
        for metric, value in metrics.get(side, {}).items()
    ]


def _summary(recipe: Recipe) -> str:
    base = code(recipe["base_model"]["name_or_path"])
    if recipe["push"]["what"] == "merged":
        return f"{base} with a LoRA adapter merged into its weights, trained with loracook."
    needs = (
        "It needs that model, which is not included"
        if is_local(recipe["base_model"])
        else "Loading it loads the base model, too"
    )
    return f"A LoRA adapter for {base}, trained with loracook. {needs}."


def _evaluation(metrics: Mapping[str, Any]) -> str:
    if not metrics.get("adapter"):
        return ""
    rows = [(prose(_words(metric)), *values) for metric, *values in figures({**metrics, "adapters": {}})]
    head = ("metric", "base model", "trained", "difference (95 % interval)", "rows")
    return f"## Evaluation\n\n{measured_on(metrics)}\n\n{table(head, rows, align='---:')}"


def _merged(merge: Mapping[str, Any]) -> str:
    """How far the published weights are from what was trained and evaluated."""
    trained, exact = merge["logits_difference_from_trained"], _percent(merge["logits_difference"])
    if trained is None:
        told = f"The merged model's logits differ by {exact} from those of the base model with the adapter"
        return f"## Merging\n\n{told} (relative L2 norm, the largest of {merge['prompts']} prompts)."
    meaning = {
        "trained": "The base weights are those that training used, dequantized, so all of it is rounding",
        "original": "The base was quantized while training and evaluation measured it, and these weights "
        "are the original ones: the first figure is what that changes",
    }
    return (
        "## Merging\n\n"
        f"The merged model's logits differ by {_percent(trained)} from those of the model that was trained "
        f"(quantized base model and adapter), and by {exact} from those of the unquantized base model with "
        f"the adapter (relative L2 norm, the largest of {merge['prompts']} prompts). "
        f"{meaning[merge['base']]}."
    )


def _percent(share: float) -> str:
    return "less than 0.01%" if share < 1e-4 else f"{share:.2%}"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _data(recipe: Recipe) -> Iterator[str]:
    for source in _sources(recipe):
        keys = ("name", "split", "revision", "format", "rows", "weight")
        facts = ", ".join(f"{key} {code(spell(source[key]))}" for key in keys if key in source)
        yield f"- {code(source['path'])}" + (f" ({facts})" if facts else "")


def _sources(recipe: Recipe) -> list[Mapping[str, Any]]:
    return recipe["dataset"].get("sources") or [recipe["dataset"]]


def _reproduction(recipe: Recipe) -> str:
    sections = {name: recipe[name] for name in schema()["properties"] if name in recipe and name != "push"}
    plain = json.loads(json.dumps(sections))  # shared values would become YAML aliases
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    where = " where its paths lead to the model and the data" if any(local_paths(plain)) else ""
    return f"Save this as `recipe.yaml`{where} and run `loracook run recipe.yaml`:\n\n{block(text, 'yaml')}"
