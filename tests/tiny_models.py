"""Tiny random models of real architectures, made in a second and saved as a folder that recipes can name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

LINES = (
    "The quick brown fox jumps over the lazy dog, and the cook writes a ticket for table seven.",
    "How many millilitres are 3 cups of milk? 3 cups of milk are 720 ml. Use plain yoghurt.",
    "You are a helpful assistant. Explain to a child why the sky is blue, please!",
    '{"table": 4, "items": [{"n": 2, "dish": "soup"}]}\n### User: ### Assistant:',
)
SMALL: dict[str, dict[str, Any]] = {
    "phi": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "opt": {
        "hidden_size": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 64,
        "max_position_embeddings": 512,
    },
    "gpt_neo": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "falcon": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "new_decoder_architecture": False,
    },
    "gpt_neox": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
"""What makes each architecture tiny; 64 is the block that 4-bit weights come in on a CPU."""


def write_twin(folder: Path, model_type: str, *, seed: int = 0) -> Path:
    """Write a random model of `model_type` with a tokenizer of its own into `folder`."""
    tokenizer = tokenizer_of(LINES)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **ids, **SMALL[model_type])
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tokenizer_of(lines: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of a few lines, with an end token and neither padding nor template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
