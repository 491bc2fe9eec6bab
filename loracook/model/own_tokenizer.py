"""The tokenizer in a folder: that of the base model, or of another place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.errors import LoracookError, RecipeError, shorten
from loracook.errors import Path as Key
from loracook.model import tokenizer_file
from loracook.model.broken_files import LIMIT, PANIC, reading
from loracook.model.contents import CONFIG
from loracook.model.own_code import BASE_MODEL, NO_CODE, own_code
from loracook.recipe.derived import OTHER_TOKENIZER
from loracook.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    Load = Callable[[Path], PreTrainedTokenizerBase]

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
"""Files of which a folder with a tokenizer has at least one."""
NO_TOKEN = "\N{POT OF FOOD} no token"
"""What no vocabulary has, so that the id of the unknown token is asked for."""
NO_TOKENIZER: dict[Key, str] = {
    BASE_MODEL: "the model's folder has no tokenizer; copy one into it, or set tokenizer.name_or_path",
    OTHER_TOKENIZER: "has no tokenizer; name a folder with a tokenizer.json",
}


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a file of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZERS)


def own_tokenizer(recipe: Recipe, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the base model in `folder`, as it is; raises RecipeError where none can be read."""

    def by_its_class(folder: Path) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, **own_code(recipe))

    described = (folder / CONFIG).is_file()  # which AutoTokenizer needs
    return loaded(recipe, folder, by_its_class if described else by_files, at=BASE_MODEL)


def by_class(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer by the class that its files name, or the config of its model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **NO_CODE)


def by_files(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer without torch: preview takes half the time."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, **NO_CODE)


def loaded(recipe: Recipe, folder: Path, load: Load, *, at: Key) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder that the recipe names at `at`, tried on a word.

    Raises:
        RecipeError: there is none, or it cannot be read.
    """
    with reading(recipe, folder, "its tokenizer", at=at):
        tokenizer = load(folder)
        special = tokenizer.all_special_ids
        if not (folder / TOKENIZERS[0]).is_file():
            _check_converted(tokenizer)
    if len(tokenizer) == len(special):  # some classes load from no files at all
        raise RecipeError([recipe.problem(at, NO_TOKENIZER[at])])
    with reading(recipe, folder, "its tokenizer", at=at):
        tokenizer.decode(tokenized(tokenizer, "soup").input_ids)  # some settings fail no earlier
        tokenizer.convert_tokens_to_ids(NO_TOKEN)
        _check_templates(tokenizer.chat_template)
    return tokenizer


def _check_converted(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError where a tokenizer that upstream made of other files would be refused as a file."""
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        for fault in tokenizer_file.faults_of(backend.to_str().encode()):
            raise ValueError("it " + fault.partition(";")[0])


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: str | list[str], **options: Any) -> BatchEncoding:
    """What a tokenizer makes of texts; every call of one for texts is this one.

    Raises LoracookError where its description fails on one, such as an expression that takes too long.
    """
    try:
        return tokenizer(texts, **options)
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        named = f"the tokenizer in {tokenizer.name_or_path}"
        reason = shorten(" ".join(str(error).split()), LIMIT)
        message = f"{named} fails on a text: {reason}; name another with tokenizer.name_or_path"
        raise LoracookError(message) from error


def _check_templates(stated: object) -> None:
    """Raise ValueError where a chat template, or one of several by their names, is no text."""
    templates = list(stated.values()) if isinstance(stated, dict) else [stated]
    if not all(isinstance(template, str | None) for template in templates):
        raise ValueError("a chat template that is no text")
