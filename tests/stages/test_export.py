"""An exported model is the merged one, in the formats of llama.cpp and Ollama, or is refused by name."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedModel,
)

from loracook import data, model
from loracook.errors import LoracookError, RecipeError
from loracook.machine.versions import installed
from loracook.model.gguf_check import check_rope, check_weights, load_exported
from loracook.model.gguf_export import (
    PACKAGE,
    check_description,
    try_export,
    write_gguf,
)
from loracook.progress import Silent
from loracook.recipe.recipe import Recipe, load
from loracook.stages import export
from loracook.stages.base import Consent, Folders
from tests.tiny_models import LINES, tokenizer_of

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA_TOKENS = {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2}
GEMMA_TOKENS = {
    "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
    "pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>", "add_dummy_prefix": False,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
CHATS = [
    {"messages": [{"role": "user", "content": line}, {"role": "assistant", "content": "yes"}]}
    for line in LINES
]
converting = pytest.mark.skipif(
    None in map(installed, (PACKAGE, "sentencepiece")), reason="llama.cpp's converter is not installed"
)


def base_model(folder: Path, kind: str, **config: Any) -> Path:
    """A random model of a kind whose norms are not all one, with a SentencePiece tokenizer."""
    from sentencepiece import SentencePieceTrainer

    folder.mkdir()
    written, gemma = io.BytesIO(), kind.startswith("gemma")
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=written, vocab_size=340, model_type="bpe",
        byte_fallback=True, minloglevel=2, **(GEMMA_TOKENS if gemma else LLAMA_TOKENS),
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    (GemmaTokenizer if gemma else LlamaTokenizer).from_pretrained(folder).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("vocab_file", None)  # which transformers writes where there was no tokenizer.json
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    random_model(kind, vocabulary=340, **config).save_pretrained(folder)
    return folder


def random_model(kind: str, vocabulary: int, **config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    made = AutoConfig.for_model(kind, vocab_size=vocabulary, **SIZES, **config)
    causal: PreTrainedModel = AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)
    for name, weight in causal.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, 1, 0.1)
    return causal


def recipe_on(folder: Path, **sections: Any) -> Recipe:
    """A recipe that trains on chats, merges and exports."""
    (folder.parent / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
    recipe = {
        "version": 1,
        "name": "exported",
        "base_model": {"name_or_path": f"./{folder.name}"},
        "dataset": {"path": "./chats.jsonl"},
        "template": {"chat_template": "chatml"},
        "lora": {"r": 4, "target_modules": "all-linear"},
        "train": {"max_steps": 1, "max_length": 64},
        "merge": {},
        "export": {},
        **sections,
    }
    (folder.parent / "recipe.yaml").write_text(json.dumps(recipe))
    return load(folder.parent / "recipe.yaml")


def merge_into(folder: Path, recipe: Recipe, base: Path, kind: str, **config: Any) -> Path:
    """A folder of the merge stage with a random model, and the tokenizer as training saves it."""
    tokenizer = data.with_template(recipe, model.load_tokenizer(recipe, base))
    causal = random_model(kind, vocabulary=len(tokenizer), **config)
    causal.generation_config.eos_token_id = [2, tokenizer.eos_token_id]
    causal.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


@dataclass(frozen=True)
class Exported:
    """A finished export: its folder, the merged model's, the base model's, and the result."""

    folder: Path
    merged: Path
    base: Path
    result: dict[str, Any]


def exported(folder: Path, kind: str, outtype: str, **config: Any) -> Exported:
    """An export of a random merged model, whose files name code."""
    base = base_model(folder / "base", kind, **config)
    recipe = recipe_on(base, export={"outtype": outtype})
    merge = merge_into(folder / "merge", recipe, base, kind, **config)
    name_code(merge / "model", does=f"open({str(folder / 'ran')!r}, 'w')")
    (folder / "export").mkdir()
    folders = Folders(folder / "export", {"merge": merge}, folder, folder / "cache")
    result = export.run(recipe, folders, consent=Consent(), progress=Silent())
    return Exported(folders.own, merge / "model", base, result)


def name_code(folder: Path, does: str) -> None:
    (folder / "code.py").write_text(f"{does}\nclass Tokenizer: pass\n")
    for name, auto_map in (
        ("config.json", {"AutoConfig": "code.Tokenizer"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["code.Tokenizer", None]}),
    ):
        settings = json.loads((folder / name).read_text()) | {"auto_map": auto_map}
        (folder / name).write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(tmp_path_factory.mktemp("llama"), "llama", "bf16", rope_parameters=LLAMA3)


def check_exported(made: Exported, outtype: str) -> None:
    assert sorted(path.name for path in made.folder.iterdir()) == ["Modelfile", f"exported-{outtype}.gguf"]
    assert 0 <= made.result["weights_difference"] < (0.01 if outtype == "q8_0" else 1e-6)
    assert made.result["logits_difference"] < (0.05 if outtype == "q8_0" else 1e-6)
    assert made.result["template_rows"] == len(CHATS)
    assert not (made.folder.parent / "ran").exists()


@converting
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "outtype"),
    [("gemma2", "f16"), ("gemma3_text", "bf16"), ("phi3", "f16"), ("qwen3", "q8_0")],
)
def test_the_exported_model_is_the_merged_one(kind: str, outtype: str, tmp_path: Path) -> None:
    check_exported(exported(tmp_path, kind, outtype), outtype)


@converting
@pytest.mark.slow
def test_the_weights_of_a_qwen2_model_are_exported(tmp_path: Path) -> None:
    base, file = base_model(tmp_path / "base", "qwen2"), tmp_path / "a.gguf"
    write_gguf(base, base, file, outtype="f16")
    merged = AutoModelForCausalLM.from_pretrained(base, dtype="auto").eval()
    read = load_exported(file, merged.config)
    assert check_weights(merged, read, "f16") < 1e-6
    text = torch.tensor([[5, 7, 9, 11]])
    assert torch.allclose(merged(text).logits, read(text).logits, atol=1e-3)


@converting
@pytest.mark.slow
def test_a_modelfile_lies_beside_the_exported_model(llama: Exported) -> None:
    check_exported(llama, "bf16")
    assert (llama.folder / "Modelfile").read_text() == (
        "FROM ./exported-bf16.gguf\n"
        'TEMPLATE """{{ range $i, $m := .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n'
        '{{ .Content }}<|im_end|>\n{{ else if eq .Role "user" }}<|im_start|>user\n'
        '{{ .Content }}<|im_end|>\n{{ else if eq .Role "assistant" }}<|im_start|>assistant\n'
        '{{ .Content }}<|im_end|>\n{{ end }}{{ end }}<|im_start|>assistant\n"""\n'
        'PARAMETER stop """</s>"""\nPARAMETER stop """<|im_end|>"""\nPARAMETER num_ctx 64\n'
    )


SABOTAGES: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "swapped": lambda weights: weights["model.layers.0.mlp.up_proj.weight"].copy_(
        weights["model.layers.1.mlp.up_proj.weight"].clone()
    ),
    "permuted": lambda weights: weights["model.layers.0.self_attn.q_proj.weight"].copy_(
        weights["model.layers.0.self_attn.q_proj.weight"].view(4, 2, 8, 64).transpose(1, 2).reshape(64, 64)
    ),
    "scaled": lambda weights: weights["lm_head.weight"].mul_(1.05),
    "not shifted": lambda weights: weights["model.norm.weight"].sub_(1),
    "not finite": lambda weights: weights["model.layers.1.mlp.down_proj.weight"][3].fill_(torch.nan),
}


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", SABOTAGES)
def test_a_weight_that_is_another_one_is_refused_by_name(name: str, outtype: str) -> None:
    merged = random_model("llama", vocabulary=100)
    exported = deepcopy(merged)
    assert check_weights(merged, exported, outtype) == 0
    SABOTAGES[name](exported.state_dict())
    with pytest.raises(LoracookError, match=r"weight of the GGUF file is off by (nan|[\d.]+)% of its norm"):
        check_weights(merged, exported, outtype)


def other_rope(config: Any, tokenizer: Any) -> None:
    config.rope_parameters["rope_theta"] = 5e5


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "has rms_norm_eps": lambda config, tokenizer: setattr(config, "rms_norm_eps", 1e-5),
    "has rope_theta": other_rope,
    "another chat template": lambda config, tokenizer: setattr(tokenizer, "chat_template", "{{ messages }}"),
    "it has 343 tokens, the GGUF file 342": lambda config, tokenizer: tokenizer.add_tokens(["<|new|>"]),
}


@converting
@pytest.mark.slow
@pytest.mark.parametrize("said", CHANGES)
def test_a_file_that_describes_another_model_is_refused(said: str, llama: Exported) -> None:
    config, tokenizer = AutoConfig.from_pretrained(llama.merged), AutoTokenizer.from_pretrained(llama.merged)
    check_description(llama.folder / llama.result["file"], config, tokenizer)
    CHANGES[said](config, tokenizer)
    with pytest.raises(LoracookError, match=said):
        check_description(llama.folder / llama.result["file"], config, tokenizer)


@converting
@pytest.mark.slow
def test_other_rope_frequencies_are_refused(llama: Exported) -> None:
    other = random_model("llama", vocabulary=342, rope_parameters={**LLAMA3, "factor": 16.0})
    with pytest.raises(LoracookError, match="other RoPE frequencies"):
        check_rope(llama.folder / llama.result["file"], other)


@converting
@pytest.mark.slow
def test_a_sentencepiece_tokenizer_without_its_file_is_refused_before_training(llama: Exported) -> None:
    recipe, tokenizer = load(llama.base.parent / "recipe.yaml"), AutoTokenizer.from_pretrained(llama.base)
    tokenizer.save_pretrained(llama.base.parent / "without")
    AutoConfig.from_pretrained(llama.base).save_pretrained(llama.base.parent / "without")
    with pytest.raises(RecipeError, match=r"from a tokenizer\.model alone"):
        try_export(recipe, llama.base.parent / "without", tokenizer)


@converting
@pytest.mark.slow
def test_what_can_be_exported_is_known_before_training(llama: Exported) -> None:
    recipe = load(llama.base.parent / "recipe.yaml")
    try_export(recipe, llama.base, model.saved_tokenizer(recipe, llama.merged))


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("gpt_neox", {}, "transformers does not read gpt_neox models from GGUF"),
        ("llama", {"rope_parameters": YARN}, "'yarn' RoPE scaling"),
        pytest.param(
            "qwen2", {}, "BPE pre-tokenizer was not recognized", marks=[converting, pytest.mark.slow]
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_before_training(
    kind: str, config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    sizes = {**SIZES, **config}
    AutoConfig.for_model(kind, vocab_size=400, **sizes).save_pretrained(tmp_path / "base")
    tokenizer = tokenizer_of(LINES)
    tokenizer.save_pretrained(tmp_path / "base")
    recipe = recipe_on(tmp_path / "base")
    with pytest.raises(RecipeError) as refused:
        try_export(recipe, tmp_path / "base", tokenizer)
    [problem] = refused.value.problems
    assert (problem.path, problem.severity) == (("export",), "error")
    assert re.fullmatch(
        f"this model cannot be exported: .*{reason}.*; remove 'export:', and .* llama.cpp", problem.message
    )
