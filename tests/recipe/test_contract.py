"""The contract with upstream, and what every key of the schema must have."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from loracook.errors import dotted
from loracook.recipe.schema import Schema, all_keys, schema, types_of
from loracook.recipe.schema_errors import check
from tests.recipe.upstream import differences, parameters, resolve, sections

KEYWORDS = {
    "$schema", "$id", "title", "description", "type", "enum", "const", "default", "examples",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "pattern",
    "items", "minItems", "maxItems", "uniqueItems",
    "properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties",
    "x-upstream", "x-declined", "x-ours", "x-decided-by", "x-unless",
}  # fmt: skip
DOCUMENTED = (
    "trl.SFTConfig",
    "trl.trainer.base_config._BaseConfig",
    "transformers.TrainingArguments",
    "transformers.BitsAndBytesConfig",
    "transformers.GenerationConfig",
    "transformers.EarlyStoppingCallback",
    "transformers.PreTrainedModel.from_pretrained",
    "transformers.PreTrainedModel.save_pretrained",
    "transformers.PreTrainedTokenizerBase",
    "peft.LoraConfig",
    "peft.tuners.lora.config.VeloraConfig",
    "peft.tuners.lora.config.BdLoraConfig",
    "peft.LoraModel.merge_and_unload",
    "peft.optimizers.create_loraplus_optimizer",
    "datasets.load_dataset",
    "huggingface_hub.HfApi.create_repo",
    "huggingface_hub.HfApi.upload_folder",
)
RUN = 8
KEYS = {dotted(path): part for path, part in all_keys()}


def test_every_upstream_parameter_is_offered_or_declined_and_nothing_else_is() -> None:
    assert sorted(differences()) == []


def test_every_call_that_the_schema_names_is_held_against_upstream() -> None:
    assert [path for path, _ in sections()] == [
        "base_model",
        "tokenizer",
        "dataset",
        "quantization",
        "lora",
        "lora.velora_config",
        "lora.use_bdlora",
        "lora.loraplus",
        "train",
        "train.early_stopping",
        "evaluate.generation",
        "lm_eval",
    ]


def test_a_task_of_ones_own_has_keys_of_upstream_and_declines_others() -> None:
    theirs = parameters(pytest.importorskip("lm_eval.config.task").__name__ + ".TaskConfig").keys()
    task = schema()["properties"]["lm_eval"]["properties"]["tasks"]["items"]
    assert task["properties"].keys() - theirs == set()
    assert task["x-declined"].keys() - theirs == {"class", "include"}  # of its YAML files


def test_scheduler_settings_are_those_of_the_schedulers() -> None:
    import torch
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

    found = [*TYPE_TO_SCHEDULER_FUNCTION.values(), torch.optim.lr_scheduler.ReduceLROnPlateau, GreedyLR]
    theirs = {name for function in found for name in inspect.signature(function).parameters}
    handed_over = {"optimizer", "name", "kwargs", "last_epoch", "num_warmup_steps", "num_training_steps"}
    declined = {"mode", "verbose"}  # a loss is to fall; printing is loracook's
    ours = set(schema()["properties"]["train"]["properties"]["lr_scheduler_kwargs"]["properties"])
    assert ours == theirs - handed_over - declined


def test_checkpointing_settings_are_those_of_torch_transformers_and_trl() -> None:
    theirs = parameters("torch.utils.checkpoint.checkpoint").keys() | {"selective", "every_n_layers"}
    ours = schema()["properties"]["train"]["properties"]["activation_checkpointing_kwargs"]["properties"]
    assert ours.keys() - theirs == set()


def test_a_source_and_the_evaluation_rows_have_the_bounds_of_a_data_set() -> None:
    dataset = schema()["properties"]["dataset"]["properties"]
    for inner in (dataset["sources"]["items"]["properties"], dataset["eval"]["properties"]):
        for name in inner.keys() & dataset.keys() - {"rows"}:
            assert _bounds(inner[name]) == _bounds(dataset[name]), name


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_only_plain_keywords_are_used() -> None:
    assert {keyword for part in _parts(schema()) for keyword in part} <= KEYWORDS


def test_every_value_is_bounded_at_both_ends() -> None:
    assert [name for name, part in KEYS.items() for _ in _unbounded(part)] == []


def test_every_mapping_is_closed_or_bounded() -> None:
    open_ = [
        part
        for part in _parts(schema())
        if "properties" in part and part["additionalProperties"] is not False
    ]
    assert open_ == []


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_a_description_an_example_and_a_default_that_are_valid(key: str) -> None:
    part = KEYS[key]
    assert part["description"].endswith(".")
    assert len(part["description"]) <= 300
    assert part["examples"]
    for value in part["examples"] + ([part["default"]] if "default" in part else []):
        assert list(Draft202012Validator(part).iter_errors(value)) == []
        assert list(check(value, part, ())) == []


@pytest.mark.parametrize("key", [name for name, part in KEYS.items() if "x-decided-by" in part])
def test_what_loracook_decides_has_a_default(key: str) -> None:
    assert KEYS[key]["x-decided-by"] == "loracook"
    assert "default" in KEYS[key]


def test_every_declined_parameter_has_a_reason_and_is_not_offered() -> None:
    for part in _parts(schema()):
        declined = part.get("x-declined", {})
        assert not declined.keys() & {*part.get("properties", {}), *map(str, part.get("enum", []))}
        for name, reason in declined.items():
            assert re.fullmatch(r"\w.{5,110}[^.]", reason), name


def test_no_description_repeats_upstreams_words() -> None:
    theirs = {run for name in DOCUMENTED for run in _runs(_documentation(resolve(name)))}
    assert len(theirs) > 10_000
    copied = {key: run for key, part in KEYS.items() for run in _runs(part["description"]) if run in theirs}
    assert copied == {}


def _parts(part: Schema) -> Iterator[Schema]:
    """A part of the schema and every part within it."""
    yield part
    for inner in part.get("properties", {}).values():
        yield from _parts(inner)
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if isinstance(part.get(keyword), dict):
            yield from _parts(part[keyword])


def _bounds(part: Schema) -> dict[str, Any]:
    return {
        keyword: bound
        for keyword, bound in part.items()
        if keyword in KEYWORDS - {"description", "examples", "default", "x-decided-by"}
    }


def _unbounded(part: Schema) -> Iterator[str]:
    """The types of a part, or of one within it, that some value could exceed."""
    has = part.keys()
    fine = {
        "string": "maxLength" in has,
        "integer": has & {"minimum", "exclusiveMinimum"} and has & {"maximum", "exclusiveMaximum"},
        "number": has & {"minimum", "exclusiveMinimum"} and has & {"maximum", "exclusiveMaximum"},
        "boolean": True,
        "array": {"items", "maxItems"} <= has,
        "object": part.get("additionalProperties") is False
        or ("maxProperties" in has and "maxLength" in part.get("propertyNames", {})),
    }
    if "enum" not in part:
        yield from (kind for kind in types_of(part) or ("anything",) if not fine.get(kind))
    for keyword in ("items", "additionalProperties"):
        if isinstance(part.get(keyword), dict):
            yield from _unbounded(part[keyword])


def _documentation(found: Any) -> str:
    fields = getattr(found, "__dataclass_fields__", {}).values()
    return " ".join([found.__doc__ or "", *(str(field.metadata.get("help", "")) for field in fields)])


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    yield from (tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1))
