"""What a base model's files name outside of it, and sizes that nobody can build, are refused before upstream reads them."""

from __future__ import annotations

import ast
import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from tokenizers import normalizers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import loracook
from loracook.data.tokenize.encode import encode
from loracook.data.tokenize.render import Rendered
from loracook.errors import LoracookError, RecipeError
from loracook.model import (
    fetch_description,
    load_config,
    load_model,
    load_on_meta,
    load_tokenizer,
    unused_keys,
)
from loracook.model.contents import check_contents, check_shards
from loracook.model.fetch import fetch
from loracook.model.generation_config import generation_settings
from loracook.model.own_code import BASE_MODEL
from loracook.model.own_tokenizer import loaded
from loracook.recipe.recipe import Recipe
from tests.model.test_refusals import config
from tests.plans import invoked, written
from tests.tiny_models import LINES, tokenizer_of


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe on a folder with a small config, in a repository with a file that is not the model's."""
    (tmp_path / "project").mkdir()
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    monkeypatch.chdir(tmp_path / "project")
    config("llama").save_pretrained("model")
    return Recipe(Path("recipe.yaml"), {"base_model": {"name_or_path": "./model"}}, ())


def change(name: str, **keys: Any) -> None:
    """Write keys into a file of the model."""
    file = Path("model") / name
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | keys))


def refusal(recipe: Recipe) -> str:
    with pytest.raises(RecipeError) as refused:
        fetch_description(recipe, Path("cache"))
    return refused.value.problems[0].message


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "config.json"])
@pytest.mark.parametrize(
    "key",
    ["vocab_file", "merges_file", "gguf_file", "vocab", "init_inputs", "fast_tokenizer_files", "nested"],
)
@pytest.mark.parametrize("spelled", ["absolute", "relative to the model", "relative to the working folder"])
def test_a_file_outside_of_the_model_is_refused(recipe: Recipe, name: str, key: str, spelled: str) -> None:
    text = {
        "absolute": str(Path.cwd().parent / "secret.json"),
        "relative to the model": "../../secret.json",
    }.get(spelled, "../secret.json")
    value: Any = (
        [text] if key.endswith(("inputs", "files")) else {"a": [{"b": text}]} if key == "nested" else text
    )
    change(name, **{key: value})
    assert refusal(recipe).startswith(f"its {name} names ")
    assert "a file outside of its folder; remove it there" in refusal(recipe)


def test_a_plain_name_is_refused_where_the_working_folder_has_such_a_file(recipe: Recipe) -> None:
    change("tokenizer_config.json", vocab_file="notes.txt", tokenizer_class="notes")
    assert fetch_description(recipe, Path("cache")).name == "model"
    Path("notes.txt").touch()
    assert "names 'notes.txt' as vocab_file" in refusal(recipe)


@pytest.mark.parametrize(
    "text",
    [
        "/home/someone/vocab.json",
        "org/model",
        "../gone.json",
        "<|a/b|>",
        "x\x00/",
        "\ud800/",
        "/",
        "y/" * 9000,
    ],
)
def test_what_names_no_file_of_this_machine_is_left_alone(recipe: Recipe, text: str) -> None:
    change("tokenizer_config.json", special_tokens_map_file=text, name_or_path=text)
    change("config.json", _name_or_path=text)
    assert fetch_description(recipe, Path("cache")).name == "model"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"a": "../w.safetensors"}, "names '../w.safetensors', which is not in its folder"),
        ({"a": "/etc/w.safetensors"}, "names '/etc/w.safetensors', which is not in its folder"),
        ({"a": "sub/w.safetensors"}, "names 'sub/w.safetensors', which is not in its folder"),
        (
            {"a": "w.safetensors", "b": "pytorch_model.bin"},
            "names 'pytorch_model.bin', which is not safetensors, and pickles can run code",
        ),
        ({"a": 3}, "names '3', which is not in its folder"),
        (["w.safetensors"], "has no weight_map"),
        ("w.safetensors", "has no weight_map"),
    ],
)
@pytest.mark.parametrize("index", ["model", "other"])
def test_an_index_names_safetensors_of_its_own_folder_alone(
    recipe: Recipe, index: str, names: object, said: str
) -> None:
    Path("model/w.safetensors").touch()
    change(f"{index}.safetensors.index.json", weight_map=names, metadata={})
    assert refusal(recipe).startswith(f"{index}.safetensors.index.json {said}")


def test_a_missing_shard_is_named_before_weights_are_read(recipe: Recipe) -> None:
    Path("model/w.safetensors").touch()
    change("model.safetensors.index.json", weight_map={"a": "w.safetensors", "b": "v.safetensors"})
    fetch_description(recipe, Path("cache"))
    with pytest.raises(RecipeError, match=r"names 'v\.safetensors', which is not in its folder"):
        fetch(recipe, Path("cache"))


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "../w.safetensors", "/w.safetensors", "sub/w.safetensors.index.json"]
)
def test_weights_that_the_config_names_are_safetensors_of_its_own_folder(recipe: Recipe, name: str) -> None:
    change("config.json", transformers_weights=name)
    assert f"names '{name}', which is not in its folder" in refusal(recipe)


def test_a_commit_in_the_hubs_cache_is_held_to_the_same_but_for_its_links(recipe: Recipe) -> None:
    snapshot = Path("hub/snapshots") / ("1" * 40)
    snapshot.mkdir(parents=True)
    Path("model/w.safetensors").touch()
    change("model.safetensors.index.json", weight_map={"a": "w.safetensors"})
    change("tokenizer_config.json", tokenizer_file="./w.safetensors")
    for number, file in enumerate(Path("model").iterdir()):
        file.rename(Path("hub") / str(number))
        (snapshot / file.name).symlink_to(Path("../../") / str(number))
    check_contents(recipe, snapshot)
    check_shards(recipe, snapshot)
    (snapshot / "tokenizer_config.json").write_text('{"tokenizer_file": "../../0"}')
    with pytest.raises(RecipeError, match="a file outside of its folder"):
        check_contents(recipe, snapshot)


@pytest.mark.parametrize(
    "key",
    [
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
    ],
)
@pytest.mark.parametrize("value", ["org/kernel", "kernels-community/flash-attn2:attend", {"": "org/kernel"}])
def test_a_kernel_from_the_hub_is_refused(recipe: Recipe, key: str, value: object) -> None:
    change("config.json", text_config={key: value} if isinstance(value, str) else {}, **{key: value})
    if isinstance(value, dict):
        assert unused_keys(recipe, fetch_description(recipe, Path("cache"))) == [key]
    else:
        assert f"as {key}, which is code from the hub" in refusal(recipe)


def test_what_would_pick_code_is_named_in_the_plan_and_not_used(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        base_model={"name_or_path": "./model"},
        lora={"target_modules": "all-linear"},
        train={"max_steps": 10},
    )
    config("llama").save_pretrained(tmp_path / "model")
    written_config = json.loads((tmp_path / "model/config.json").read_text())
    picked = {
        "_attn_implementation": "flash_attention_2",
        "auto_map": {"AutoModelForCausalLM": "soup.Soup"},
        "trust_remote_code": True,
    }
    (tmp_path / "model/config.json").write_text(json.dumps(written_config | picked))
    said = "not used from the model's config.json: _attn_implementation, auto_map, trust_remote_code"
    assert said in " ".join(invoked(file).stdout.split())
    base = load_on_meta(
        Recipe(tmp_path / "recipe.yaml", {"base_model": {"name_or_path": "./model"}}, ()), tmp_path / "model"
    )
    assert base.config._attn_implementation == "sdpa"


ABSURD: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("llama", {"hidden_size": 10**12}, "hidden_size"),
    ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ("llama", {"num_hidden_layers": 1e9}, "num_hidden_layers"),
    ("llama", {"num_hidden_layers": -2}, "num_hidden_layers"),
    ("llama", {"num_hidden_layers": 10**40}, "num_hidden_layers"),
    ("llama", {"hidden_size": -64}, "negative dimension"),
    ("llama", {"hidden_size": 0, "head_dim": 0, "vocab_size": 0}, "its config.json cannot be read"),
    ("llama", {"num_attention_heads": 0}, "its config.json cannot be read"),
    ("llama", {"vocab_size": 10**9}, "vocab_size"),
    ("llama", {"num_labels": 10**9}, "num_labels"),
    ("gpt2", {"n_layer": 10**9}, "n_layer"),
    ("gpt_neo", {"attention_types": [[["global"], 10**9]]}, "attention_types"),
    ("mixtral", {"num_local_experts": 10**9}, "num_local_experts"),
    ("mixtral", {"num_local_experts": 5000, "num_hidden_layers": 400}, "400 layers of 5,000 experts"),
    ("gemma3", {"text_config": {"hidden_size": 10**12}}, "hidden_size"),
    ("gemma3", {"vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
    (
        "llama",
        {"hidden_size": 1 << 26, "num_attention_heads": 100_000, "head_dim": 1 << 26},
        "its config.json cannot be read",
    ),
)


@pytest.mark.parametrize(("kind", "sizes", "said"), ABSURD)
def test_absurd_sizes_are_refused_by_their_key(
    recipe: Recipe, kind: str, sizes: dict[str, Any], said: str
) -> None:
    change("config.json", model_type=kind, **sizes)
    with pytest.raises(RecipeError, match=said):
        load_on_meta(recipe, fetch_description(recipe, Path("cache")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_sizes_of_every_kind_of_model_are_admitted(recipe: Recipe) -> None:
    for kind in set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - {"gemma4_assistant"}:  # invalid as it stands
        Path("model/config.json").write_text(json.dumps(CONFIG_MAPPING[kind]().to_dict(), default=str))
        check_contents(recipe, Path("model"))
    change("config.json", vision_feature_layer=-2, select_layer=-1, vocab_size_per_layer=262_144)
    check_contents(recipe, Path("model"))


def test_sizes_of_published_models_are_built(recipe: Recipe) -> None:
    change(
        "config.json",
        rope_parameters={"rope_theta": 10**11, "rope_type": "default"},
        max_position_embeddings=1 << 24,
        vocab_size=1 << 20,
    )
    assert load_on_meta(recipe, fetch_description(recipe, Path("cache"))).num_parameters() > 1 << 25


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "[" * 100_000),
        ("config.json", "[]"),
        ("config.json", " " * (33 << 20)),
        ("tokenizer_config.json", "{" * 9),
        ("special_tokens_map.json", "9" * 5000),
        ("tokenizer.json", '{"added_tokens": [{"id": 4000000000}]}'),
    ],
)
def test_a_file_that_cannot_be_read_is_named(recipe: Recipe, name: str, content: str) -> None:
    (Path("model") / name).write_text(content)
    assert refusal(recipe).startswith(f"its {name} ")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "null",
        '{"model": {"type": "BPE", "vocab": {"a": 7}, "merges": ["a b"]}, "added_tokens": []}',
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_refused(recipe: Recipe, content: str) -> None:
    Path("model/tokenizer.json").write_text(content)
    with pytest.raises(RecipeError, match="its tokenizer cannot be read"):
        load_tokenizer(recipe, fetch_description(recipe, Path("cache")))


def tokenizer_json(**changes: Any) -> None:
    """Write the description of a small tokenizer into the model, with these sections instead of its own."""
    data = json.loads(tokenizer_of(LINES).backend_tokenizer.to_str())
    Path("model/tokenizer.json").write_text(json.dumps(data | changes))


def replace(written: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": written}


def steps(*several: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": several}


def template(single: list[Any], ids: int = 1) -> dict[str, Any]:
    token = {"id": "<s>", "ids": [0] * ids, "tokens": ["<s>"] * ids}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {"<s>": token}}


def table(written: bytes) -> dict[str, Any]:
    """A step that writes a text for some character, as sentencepiece describes it."""
    charsmap = base64.b64encode((4).to_bytes(4, "little") + bytes(4) + written + b"\0").decode()
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


START, TEXT = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
GROWING: dict[str, list[dict[str, Any]]] = {
    "a normalizer that can make a text more than 16 times as long": [
        {"normalizer": steps(*[replace("oo", String="o")] * 34)},
        {"normalizer": steps(*[replace("x", Regex="x?")] * 34)},
        {"normalizer": steps(*[{"type": "Prepend", "prepend": "x" * 10_000}] * 3)},
        {"normalizer": table(b"x" * 10_000)},
    ],
    "a pre_tokenizer that can make": [{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 9}}],
    "a decoder that can make": [{"decoder": replace("x" * 10_000, Regex="a")}],
    "special tokens around a text, and at most 128 can be": [
        {"post_processor": template([TEXT], ids=2_000)},
        {"post_processor": template([START] * 1000 + [TEXT])},
    ],
    "writes a text several times": [{"post_processor": template([TEXT, START, TEXT])}],
    "a post_processor of more than 64 KiB": [{"post_processor": template([START] * 5000)}],
    "steps, and at most 64 can be followed": [{"normalizer": steps(*[{"type": "NFKC"}] * 65)}],
    "adds 100,001 tokens, and at most 100,000 can be": [{"added_tokens": [{}] * 100_001}],
    "has a continuing_subword_prefix of 1,000 characters": [
        {"model": {"type": "WordPiece", "continuing_subword_prefix": "#" * 1000}}
    ],
    "has a token of 300 characters": [
        {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a" * 300, -1.0]]}}
    ],
    "splits words of 9,999,999 characters": [
        {"model": {"type": "WordPiece", "max_input_chars_per_word": 9_999_999}}
    ],
}


@pytest.mark.parametrize("said", GROWING)
def test_a_tokenizer_that_takes_memory_or_hours_by_its_description_is_refused(
    recipe: Recipe, said: str
) -> None:
    for changes in GROWING[said]:
        tokenizer_json(**changes)
        assert refusal(recipe).startswith("its tokenizer.json ")
        assert said in refusal(recipe)


def test_a_tokenizer_for_another_version_of_transformers_is_looked_at_too(recipe: Recipe) -> None:
    tokenizer_json(**GROWING["writes a text several times"][0])
    Path("model/tokenizer.json").rename("model/tokenizer.4.0.0.json")
    assert refusal(recipe).startswith("its tokenizer.4.0.0.json writes a text several times")


def test_a_tokenizer_that_upstream_makes_of_other_files_is_looked_at_too(recipe: Recipe) -> None:
    def made(_: Path) -> PreTrainedTokenizerBase:
        tokenizer = tokenizer_of(LINES)
        tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("x" * 1000)
        return tokenizer

    with pytest.raises(
        RecipeError, match="its tokenizer cannot be read: it has a normalizer that can make a text"
    ):
        loaded(recipe, Path("model"), made, at=BASE_MODEL)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": steps({"type": "Prepend", "prepend": "▁"}, replace("▁", String=" "))},
        {"normalizer": steps(table(b"x" * 33), replace(" ", Regex=" {2,}"))},
        {"post_processor": template([START] * 4 + [TEXT, START])},
    ],
)
def test_tokenizers_as_they_are_published_are_read(recipe: Recipe, changes: dict[str, Any]) -> None:
    tokenizer_json(**changes)
    assert fetch_description(recipe, Path("cache")).name == "model"


def test_a_tokenizer_s_config_adds_no_more_tokens_than_the_tokenizer(recipe: Recipe) -> None:
    change("tokenizer_config.json", added_tokens_decoder={str(number): 1 for number in range(100_001)})
    assert "its tokenizer_config.json has added_tokens_decoder of 100,001 entries" in refusal(recipe)


def test_an_expression_of_a_tokenizer_that_gives_up_on_a_text_is_a_sentence(recipe: Recipe) -> None:
    hostile = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$|(a|a)*b"},
        "behavior": "Isolated",
        "invert": False,
    }
    tokenizer_json(pre_tokenizer=hostile)
    tokenizer = load_tokenizer(recipe, fetch_description(recipe, Path("cache")))
    with pytest.raises(LoracookError, match=r"the tokenizer in .*model fails on a text: Onig: Regex search"):
        encode([Rendered("a" * 40 + "!")], tokenizer)


def test_every_call_of_a_tokenizer_for_texts_is_the_one_that_knows_its_faults() -> None:
    calls = [
        f"{file.name}: {ast.unparse(call)}"
        for file in Path(loracook.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "tokenizer"
    ]
    assert calls == ["own_tokenizer.py: tokenizer(texts, **options)"]


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", "generation_config.json"],
)
def test_a_file_of_holes_in_a_model_is_not_read_to_its_end(recipe: Recipe, name: str) -> None:
    os.truncate(os.open(Path("model") / name, os.O_CREAT | os.O_RDWR), 1 << 40)
    assert refusal(recipe).startswith(f"its {name} is a file of holes, which would be read for hours")


@pytest.mark.parametrize(
    "name",
    ["generation_config.json", "chat_template.jinja", "model.safetensors", "sub/deep.json", "README.md"],
)
def test_a_pipe_in_a_model_is_refused_and_not_waited_for(recipe: Recipe, name: str) -> None:
    Path("model/sub").mkdir()
    (Path("model") / name).unlink(missing_ok=True)
    os.mkfifo(Path("model") / name)
    assert refusal(recipe) == f"its {Path(name).name} is not a regular file; name a file or folder"


def test_a_pipe_is_no_model(recipe: Recipe) -> None:
    Path("model").rename("other")
    os.mkfifo("model")
    assert "is not a regular file" in refusal(recipe)


def test_generation_settings_that_cannot_be_read_are_left_out(recipe: Recipe) -> None:
    Path("model/generation_config.json").write_text("[" * 100_000)
    assert generation_settings(Path("model")).left_out == {}


@pytest.mark.parametrize("longest", ["long", [512], {"a": 1}])
def test_a_tokenizer_that_cannot_encode_is_refused(recipe: Recipe, longest: object) -> None:
    tokenizer_of(LINES).save_pretrained("model")
    load_tokenizer(recipe, fetch_description(recipe, Path("cache")))
    change("tokenizer_config.json", model_max_length=longest)
    with pytest.raises(RecipeError, match="its tokenizer cannot be read"):
        load_tokenizer(recipe, fetch_description(recipe, Path("cache")))


def write_gguf(file: Path, layers: int = 2, kind: str = "llama") -> None:
    """A small model as a GGUF file, with weights for two layers."""
    writer = GGUFWriter(file, kind)
    writer.add_block_count(layers)
    for add, number in {
        writer.add_embedding_length: 32,
        writer.add_feed_forward_length: 64,
        writer.add_head_count: 4,
        writer.add_head_count_kv: 4,
        writer.add_context_length: 128,
        writer.add_vocab_size: 4,
        writer.add_eos_token_id: 0,
        writer.add_bos_token_id: 0,
    }.items():
        add(number)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|end|>", "a", "b", "ab"])
    writer.add_token_merges(["a b"])
    square, wide = (32, 32), (64, 32)
    shapes = {"attn_norm": (32,), "attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square}
    shapes |= {"ffn_norm": (32,), "ffn_gate": wide, "ffn_up": wide, "ffn_down": (32, 64)}
    every = {f"blk.{layer}.{name}.weight": shape for layer in range(2) for name, shape in shapes.items()}
    for name, shape in {"token_embd.weight": (4, 32), "output_norm.weight": (32,), **every}.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_read_alone(recipe: Recipe) -> None:
    write_gguf(Path("model/tiny.gguf"))
    Path("model/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/other"}))
    Path("model/config.json").unlink()
    Path("tiny.gguf").write_bytes(b"of the same name in the working folder")
    of_file = Recipe(recipe.file, {"base_model": {"name_or_path": "./model/tiny.gguf", "dtype": "auto"}}, ())
    folder = fetch(of_file, Path("cache"))
    assert load_config(of_file, folder).num_hidden_layers == 2
    assert load_model(of_file, folder).num_parameters() == 20_768


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_a_gguf_file_of_absurd_size_is_refused_by_its_key(recipe: Recipe, kind: str) -> None:
    write_gguf(Path("tiny.gguf"), 10**9, kind)
    of_file = Recipe(recipe.file, {"base_model": {"name_or_path": "./tiny.gguf"}}, ())
    assert f"tiny.gguf has {kind}.block_count = '1000000000'" in refusal(of_file)
