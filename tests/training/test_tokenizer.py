"""Training with another tokenizer than the base model's own, and what every later stage makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from loracook.model import saved_tokenizer
from loracook.recipe.recipe import load
from loracook.runner import run
from tests.tiny_recipes import twin_file

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS = [{"prompt": f"How many cups are {number}?", "completion": f"{number} cups."} for number in range(20)]


@pytest.mark.slow
def test_tokens_template_and_end_are_those_of_the_other_tokenizer_in_every_stage(tmp_path: Path) -> None:
    file = twin_file(
        "opt-350m-lora",
        tmp_path,
        tokenizer={"name_or_path": "./other"},
        dataset={"path": "./chats.jsonl", "format": "auto", "columns": None, "eval": {"rows": 4}},
        template={"loss": "completion"},
        evaluate={"generation": {"max_new_tokens": 2}},
        merge={},
    )
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.eos_token, tokenizer.chat_template = "<|im_end|>", TEMPLATE
    tokenizer.save_pretrained(tmp_path / "other")
    recipe = load(file)
    records = run(recipe, runs=tmp_path / "runs")
    latest = tmp_path / "runs" / recipe.name / "latest"
    adapter, merged = latest / "train" / "adapter", latest / "merge" / "model"
    saved = saved_tokenizer(recipe, adapter)
    assert saved.get_vocab() == tokenizer.get_vocab()
    assert (saved.chat_template, saved.eos_token) == (TEMPLATE, "<|im_end|>")
    assert str(tmp_path) not in (adapter / "tokenizer_config.json").read_text()
    first = records["train"]["result"]["data"]["first_row"]
    assert "<|im_start|>assistant" in json.dumps(first)
    with safe_open(merged / "model.safetensors", "pt") as weights:
        embeddings = next(name for name in weights.keys() if "embed_tokens" in name)  # noqa: SIM118
        assert weights.get_slice(embeddings).get_shape()[0] == 402
    assert AutoTokenizer.from_pretrained(merged).chat_template == TEMPLATE
    assert 401 in json.loads((merged / "generation_config.json").read_text())["eos_token_id"]
