"""A second round: training that starts from an adapter, one of ours or of somebody else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from loracook import model
from loracook.errors import RecipeError
from loracook.estimate.estimate import read_and_estimate
from loracook.machine.devices import device_here
from loracook.planner import plan
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe, load
from loracook.runner import run
from loracook.store.files import sha256
from loracook.training.trainer import trainer
from tests.tiny_models import LINES, write_twin
from tests.tiny_recipes import TWO_STEPS, twin_file, write_recipe

WEIGHTS = "adapter_model.safetensors"
FIRST = {
    "lora": {"r": 4, "lora_alpha": 12, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
    "train": {"learning_rate": 5e-2, "max_steps": 4, "lr_scheduler_type": "constant"},
    "evaluate": None,
}
LEFT_OUT: dict[str, Any] = dict.fromkeys(("r", "lora_alpha", "lora_dropout", "target_modules"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished first round, and other rows."""
    folder = tmp_path_factory.mktemp("kitchen")
    first = load(twin_file("opt-350m-lora", folder, **FIRST))
    config = folder / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dropout": 0.0}))  # so that losses compare
    run(first, runs=folder / "runs")
    rows = [{"quote": f"{line[10:]} {number}"} for number, line in enumerate(LINES * 10)]
    (folder / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def adapter_of(folder: Path) -> Path:
    return folder / "runs" / "opt-350m-lora" / "latest" / "train" / "adapter"


def second(folder: Path, start: str = "", name: str = "second", **sections: Any) -> Recipe:
    """The recipe of a second round on the other rows, which leaves out what the first one decided."""
    start = start or f"./{adapter_of(folder).relative_to(folder)}"
    own = {
        "name": name,
        "base_model": {"name_or_path": "./model"},
        "dataset": {"path": "./others.jsonl", "eval": None},
        "lora": LEFT_OUT | {"start_from": start},
        "train": TWO_STEPS | {"learning_rate": 1e-4},
        "evaluate": None,
    }
    return load(write_recipe(folder / f"{name}.yaml", "./shipped/opt-350m-lora.yaml", own, sections))


def copied(folder: Path, name: str) -> Path:
    """A copy of the first round's adapter that can be changed."""
    return Path(shutil.copytree(adapter_of(folder), folder / name, dirs_exist_ok=True))


def changed(adapter: Path, **settings: Any) -> None:
    """The adapter with other settings in its config."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def first_loss(recipe: Recipe, tuned: Any, folder: Path) -> float:
    """The loss of a model on the batch of a recipe's first step."""
    sft = trainer(recipe, folder / "unused", cache=folder / "cache", progress=Silent())
    batch = next(iter(sft.get_train_dataloader()))
    with torch.no_grad():
        return float(tuned(**batch).loss)


@pytest.mark.slow
def test_the_first_loss_of_a_second_round_is_the_first_ones_loss_on_its_rows(trained: Path) -> None:
    later = {"evaluate": {"prompts": ["The soup"], "generation": {"max_new_tokens": 2}}, "merge": {}}
    recipe = second(trained, **later)
    records = run(recipe, runs=trained / "runs")
    record = records["train"]
    log = (trained / "runs/second/latest/train/log.jsonl").read_text().splitlines()
    started = plan(recipe, trained / "runs").recipe
    base = model.load_model(recipe, trained / "model")
    round_one = model.load_tuned(load(trained / "recipe.yaml"), base, adapter_of(trained))
    expected = first_loss(started, round_one, trained)
    with round_one.disable_adapter():
        of_base = first_loss(started, round_one, trained)
    assert json.loads(log[0])["loss"] == pytest.approx(
        expected, rel=1e-3
    )  # in bfloat16, whose kernels differ
    assert abs(expected - of_base) > 0.05
    assert record["result"]["start_from"] == sha256(adapter_of(trained) / WEIGHTS)
    origins = {key: record["origins"][f"lora.{key}"] for key in ("r", "lora_alpha", "target_modules")}
    assert set(origins.values()) == {"start_from"}
    assert records["merge"]["result"]["logits_difference"] < 0.05
    saved = json.loads((trained / "runs/second/latest/train/adapter/adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["target_modules"]) == (4, 12, ["q_proj", "v_proj"])


@pytest.mark.slow
def test_an_interrupted_second_round_resumes_to_the_same_weights(trained: Path) -> None:
    recipe = second(trained, name="resumed", train={"max_steps": 3, "save_steps": 1})
    run(recipe, runs=trained / "runs")
    folder = plan(recipe, trained / "runs").stages[0].folder
    whole = (folder / "adapter" / WEIGHTS).read_bytes()
    (folder / "record.json").unlink()
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-3")
    assert run(recipe, runs=trained / "runs")["train"]["result"]["resumed_from"] == "checkpoint-2"
    assert (folder / "adapter" / WEIGHTS).read_bytes() == whole


def digest(recipe: Recipe) -> str:
    return plan(recipe).stages[0].digest


def test_the_weights_to_start_from_decide_the_folder_and_their_place_does_not(trained: Path) -> None:
    before = digest(second(trained))
    other = copied(trained, "elsewhere/adapter")
    assert digest(second(trained, "./elsewhere/adapter")) == before
    assert digest(second(trained, "./elsewhere/adapter", lora={"r": 4})) == before
    weights = load_file(other / WEIGHTS)
    next(iter(weights.values()))[0, 0] += 1
    save_file(weights, other / WEIGHTS, {"format": "pt"})
    assert digest(second(trained, "./elsewhere/adapter")) != before


def test_a_plan_says_what_is_taken_from_the_adapter(trained: Path) -> None:
    planned = plan(second(trained))
    assert planned.stages[0].summary.startswith("LoRA r=4 on ./model, 2 steps, from ./runs/")
    notes = read_and_estimate(planned.recipe, trained / "cache", device_here()).meta_model.notes
    taken = "r: 4, lora_alpha: 12, target_modules: [q_proj, v_proj]"
    assert notes == (f"taken from lora.start_from: {taken}",)


def refusal(recipe: Recipe, folder: Path) -> str:
    """What a plan says that refuses a recipe."""
    with pytest.raises(RecipeError) as refused:
        read_and_estimate(plan(recipe).recipe, folder / "cache", device_here())
    return "\n".join(f"{'.'.join(map(str, each.path))}: {each.message}" for each in refused.value.problems)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ({"r": 8}, "lora.r: '8', but the adapter of 'start_from' has '4'; remove it to take that"),
        ({"use_dora": True}, "lora.use_dora: 'true', but the adapter of 'start_from' has 'false'"),
        ({"modules_to_save": ["embed_tokens"]}, "lora.modules_to_save: '[embed_tokens]', but the adapter"),
        ({"target_modules": ["k_proj"]}, "its weights do not fit this base model: has no model.decoder"),
        ({"init_lora_weights": "gaussian"}, "lora.init_lora_weights: 'gaussian', but the adapter of"),
    ],
    ids=str,
)
def test_a_recipe_that_contradicts_the_adapter_is_refused(
    trained: Path, lora: dict[str, Any], says: str
) -> None:
    assert says in refusal(second(trained, lora=lora), trained)


def test_names_of_modules_and_dropout_may_be_written_in_another_way(trained: Path) -> None:
    lora = {"target_modules": ["self_attn.v_proj", "self_attn.q_proj"], "lora_dropout": 0.5, "r": 4}
    planned = plan(second(trained, lora=lora))
    estimate = read_and_estimate(planned.recipe, trained / "cache", device_here())
    assert estimate.meta_model.lora_config.lora_dropout == 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "it is of another kind"),
        ({"r": 2_000_000}, "r: "),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: "),
        ({"target_modules": "(.*.*)*Z"}, "target_modules: "),
        ({"use_qalora": True}, "'use_qalora' is not supported"),
        ({"r": None}, "its adapter_config.json has no r"),
        ({"target_modules": ["c_attn"]}, "the adapter is of another base model: 'c_attn' matches no module"),
        (
            {"target_modules": ["c_attn"], "base_model_name_or_path": "org/other"},
            "the adapter is of another base model (its config says 'org/other'): 'c_attn' matches no module",
        ),
        ({"r": 5}, "its weights do not fit this base model: model.decoder"),
        ({"target_modules": ["lm_head", "q_proj"]}, "an adapter on 'lm_head' is not trained"),
    ],
    ids=str,
)
def test_an_adapter_that_no_recipe_could_make_is_refused(
    trained: Path, change: dict[str, Any], says: str
) -> None:
    changed(copied(trained, "strange"), **change)
    assert says in refusal(second(trained, "./strange"), trained)


def test_an_adapter_of_another_base_model_is_refused_by_its_weights(trained: Path) -> None:
    write_twin(trained / "neo", "gpt_neo")
    neo = {"base_model": {"name_or_path": "./neo"}}
    assert (
        "its weights do not fit this base model (its config says './model'): has no transformer.h.0"
        in refusal(second(trained, name="neo-second", **neo), trained)
    )


def test_numbers_that_are_none_pickles_and_files_elsewhere_are_refused(trained: Path) -> None:
    adapter = copied(trained, "broken")
    weights = load_file(adapter / WEIGHTS)
    next(iter(weights.values()))[0, 0] = torch.nan
    save_file(weights, adapter / WEIGHTS, {"format": "pt"})
    recipe = second(trained, "./broken")
    assert "holds NaN or infinity" in refusal(recipe, trained)
    (adapter / WEIGHTS).unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    assert refusal(recipe, trained) == (
        f"lora.start_from: has no {WEIGHTS}; name the folder of a LoRA adapter"
    )
    save_file(weights, trained.parent / WEIGHTS)
    (adapter / WEIGHTS).symlink_to(trained.parent / WEIGHTS)
    assert "lora.start_from: " in refusal(recipe, trained)
    with pytest.raises(RecipeError, match="outside"):
        second(trained, "../elsewhere")


def test_an_adapter_of_another_version_of_peft_is_taken(trained: Path) -> None:
    recipe = second(trained)
    torch.manual_seed(1)
    base = model.load_model(recipe, trained / "model")
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["fc1", "k_proj"], modules_to_save=["fc2"], task_type="CAUSAL_LM"
    )
    get_peft_model(base, config).save_pretrained(trained / "strangers")
    changed(
        trained / "strangers", peft_version="0.99", a_new_setting=True, base_model_name_or_path="org/other"
    )
    started = plan(second(trained, "./strangers")).recipe
    assert (started["lora"]["r"], started["lora"]["modules_to_save"]) == (3, ["fc2"])
    sft = trainer(started, trained / "unused", cache=trained / "cache", progress=Silent())
    saved = load_file(trained / "strangers" / WEIGHTS)
    ours = {
        name.replace(".default", "").replace("modules_to_save.", ""): value
        for name, value in sft.model.named_parameters()
        if value.requires_grad
    }
    assert saved.keys() == ours.keys()
    assert all(torch.equal(saved[name].float(), ours[name].float()) for name in saved)


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("opt", {"use_dora": True, "use_rslora": True}),
        ("opt", {"bias": "lora_only", "alpha_pattern": {"layers.0.self_attn.q_proj": 3}}),
        ("opt", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
        ("gpt_neox", {"target_modules": "all-linear", "trainable_token_indices": [3, 5]}),
    ],
    ids=str,
)
def test_whatever_an_adapter_trains_carries_over(trained: Path, kind: str, lora: dict[str, Any]) -> None:
    base = {"base_model": {"name_or_path": f"./{write_twin(trained / kind, kind).name}"}}
    first = load(write_recipe(trained / "variant.yaml", "./recipe.yaml", base, {"lora": lora}))
    sft = trainer(first, trained / "unused", cache=trained / "cache", progress=Silent())
    torch.manual_seed(2)
    for value in sft.model.parameters():
        if value.requires_grad:
            value.data += torch.randn_like(value)
    sft.model.save_pretrained(trained / "variant")
    further = second(trained, "./variant", **base)
    again = trainer(further, trained / "unused", cache=trained / "cache", progress=Silent())
    named = dict(again.model.named_parameters())
    before = {name: value for name, value in sft.model.named_parameters() if value.requires_grad}
    assert before.keys() == {name for name, value in named.items() if value.requires_grad}
    assert all(torch.equal(value, named[name]) for name, value in before.items())


def test_the_newest_run_of_the_recipe_itself_is_no_start(trained: Path) -> None:
    """After the run it would be another one, and each run would start a further round."""
    recipe = second(trained, name="opt-350m-lora")
    with pytest.raises(
        RecipeError, match=r"lora\.start_from: .* write './runs/opt-350m-lora/train-\w+/adapter'"
    ):
        plan(recipe, trained / "runs")
    named = adapter_of(trained).resolve().relative_to(trained.resolve())
    assert plan(second(trained, f"./{named}", name="opt-350m-lora"), trained / "runs").to_do


def test_a_token_that_the_adapter_was_trained_with_has_to_be_there(trained: Path) -> None:
    token = {"tokenizer": {"extra_special_tokens": ["<dish>"]}}
    started = plan(second(trained, name="tokens", **token)).recipe
    sft = trainer(started, trained / "unused", cache=trained / "cache", progress=Silent())
    sft.model.save_pretrained(trained / "tokens", save_embedding_layers=True)
    sft.processing_class.save_pretrained(trained / "tokens")
    number = len(sft.processing_class) - 1
    assert refusal(second(trained, "./tokens"), trained) == (
        f"lora.start_from: the adapter was trained with the token '<dish>' as {number}, "
        "which it is not here; write its tokenizer section, or name an adapter of this base model"
    )
    planned = plan(second(trained, "./tokens", name="again", **token))
    again = trainer(planned.recipe, trained / "unused", cache=trained / "cache", progress=Silent())
    rows = [each.model.get_input_embeddings().weight[number] for each in (sft, again)]
    assert torch.equal(*rows)


def test_another_chat_template_than_the_adapters_is_named(trained: Path) -> None:
    adapter = copied(trained, "templated")
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    planned = plan(second(trained, "./templated"))
    notes = read_and_estimate(planned.recipe, trained / "cache", device_here()).meta_model.notes
    assert "lora.start_from was trained with another chat template than this recipe's" in notes
