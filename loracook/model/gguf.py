"""A GGUF file as the folder of a model that training can read: converted once, and cached."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, TypeAlias

from loracook.errors import MachineError, RecipeError
from loracook.model.broken_files import reading
from loracook.model.contents import check_gguf
from loracook.model.own_code import BASE_MODEL, NO_CODE
from loracook.recipe.recipe import Recipe
from loracook.store.files import sha256, sync

Part: TypeAlias = Literal["tokenizer", "description", "weights"]
"""How much of a base model is needed; each part includes the one before it."""


def conversion(gguf: Path, cache: Path) -> Path:
    """Where the whole model of a GGUF file is cached once it is converted."""
    return cache / "models" / f"{gguf.stem}-{sha256(gguf)[:16]}"


def converted(recipe: Recipe, gguf: Path, *, cache: Path, part: Part) -> Path:
    """The needed part of a GGUF file's model as a folder, cached under the hash of the file's content."""
    whole = conversion(gguf, cache)
    described = part == "description" and whole.is_dir()
    folder = whole if part == "weights" or described else whole.with_name(f"{whole.name}-{part}")
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _convert(recipe, gguf, unfinished, part=part)
        for file in unfinished.iterdir():
            sync(file)
        os.chmod(unfinished, 0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _convert(recipe: Recipe, gguf: Path, folder: Path, *, part: Part) -> None:
    try:
        check_gguf(recipe, gguf)
        with reading(recipe, gguf.parent, gguf.name, RuntimeError), tempfile.TemporaryDirectory() as alone:
            # Upstream would also read what lies beside the file, and one of its name in the working folder.
            link = Path(alone, gguf.name)
            link.symlink_to(gguf.resolve())
            _save_parts(link, folder, part=part)
    except ImportError as error:
        raise MachineError(f"{gguf.name} needs one more package; run: pip install gguf") from error
    except NotImplementedError as error:
        message = f"transformers cannot convert {gguf.name}: {error}"
        raise RecipeError([recipe.problem(BASE_MODEL, message)]) from error


def _save_parts(gguf: Path, folder: Path, *, part: Part) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast

    alone, file = gguf.parent, str(gguf)
    PreTrainedTokenizerFast.from_pretrained(alone, gguf_file=file, **NO_CODE).save_pretrained(folder)
    if part == "description":
        AutoConfig.from_pretrained(alone, gguf_file=file, **NO_CODE).save_pretrained(folder)
    if part == "weights":
        # Packed GGUF blocks can neither be trained nor saved, so they are dequantized.
        dequantized = {"dtype": "bfloat16", "quantization_config": GgufConfig(dequantize=True)}
        model = AutoModelForCausalLM.from_pretrained(alone, gguf_file=file, **NO_CODE, **dequantized)
        model.save_pretrained(folder)
