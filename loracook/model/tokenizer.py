"""A recipe's tokenizer: the base model's own, or another, whose ids are held against that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loracook.errors import RecipeError, quote
from loracook.model.contents import CONFIG, check_tokenizer
from loracook.model.fetch import SMALL_FILES, downloaded, local_path, refuse_link_out
from loracook.model.load import load_config
from loracook.model.merging import PROBES
from loracook.model.own_tokenizer import (
    NO_TOKENIZER,
    TOKENIZERS,
    by_class,
    by_files,
    has_tokenizer,
    loaded,
    own_tokenizer,
    tokenized,
)
from loracook.recipe.derived import OTHER_TOKENIZER, other_tokenizer
from loracook.recipe.recipe import Recipe
from loracook.store.folders import SCHEME, commit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_PASSED_ON = ("name_or_path", "revision")
ADVICE = "name a tokenizer made from the base model's own"


@dataclass(frozen=True)
class RecipeTokenizer:
    """A tokenizer with the recipe's special tokens.

    `notes` say how another than the base model's own fits that, `commit` is that other's on the hub.
    """

    tokenizer: PreTrainedTokenizerBase
    notes: tuple[str, ...] = ()
    commit: str | None = None


def tokenizer_in(recipe: Recipe, folder: Path) -> RecipeTokenizer | None:
    """The recipe's tokenizer, the base model's files in `folder`; None where neither has one."""
    named = other_tokenizer(recipe.sections) is not None
    return read_tokenizer(recipe, folder) if named or has_tokenizer(folder) else None


def load_tokenizer(recipe: Recipe, folder: Path) -> PreTrainedTokenizerBase:
    """The recipe's tokenizer, the base model's files in `folder`; raises RecipeError as `read_tokenizer`."""
    return read_tokenizer(recipe, folder).tokenizer


def read_tokenizer(recipe: Recipe, folder: Path) -> RecipeTokenizer:
    """The recipe's tokenizer, the base model's files in `folder`.

    Raises:
        RecipeError: there is no tokenizer, it cannot be read, or its ids are not the base model's.
    """
    named = other_tokenizer(recipe.sections) is not None
    read = _other(recipe, folder) if named else RecipeTokenizer(own_tokenizer(recipe, folder))
    section = recipe.sections.get("tokenizer", {})
    if tokens := {key: value for key, value in section.items() if key not in NOT_PASSED_ON}:
        read.tokenizer.add_special_tokens(tokens)
    return read


def tokenizer_files(recipe: Recipe) -> tuple[Path, ...]:
    """The local files of another tokenizer, sorted; none without one, and for a hub id.

    Raises:
        RecipeError: there is no tokenizer, or a file of it is a place that the recipe may not read.
    """
    named = other_tokenizer(recipe.sections) is not None
    if not named or local_path(recipe, OTHER_TOKENIZER) is None:
        return ()
    folder = _folder(recipe)
    small = {file for pattern in SMALL_FILES for file in folder.glob(pattern) if file.is_file()}
    return tuple(sorted(small))


def _other(recipe: Recipe, base: Path) -> RecipeTokenizer:
    """The tokenizer that the recipe names, which never runs code, held against the base model in `base`."""
    folder = _folder(recipe)
    check_tokenizer(recipe, folder, at=OTHER_TOKENIZER)
    settings = folder / "tokenizer_config.json"
    has_class = settings.is_file() and "tokenizer_class" in json.loads(settings.read_text("utf-8"))
    described = has_class or (folder / CONFIG).is_file()
    tokenizer = loaded(recipe, folder, by_class if described else by_files, at=OTHER_TOKENIZER)
    return RecipeTokenizer(tokenizer, tuple(_compared(recipe, base, tokenizer)), commit(folder))


def _folder(recipe: Recipe) -> Path:
    """The folder of the tokenizer that the recipe names; one on the hub is downloaded."""
    name, folder = recipe["tokenizer"]["name_or_path"], local_path(recipe, OTHER_TOKENIZER)
    if folder is None:
        revision = recipe["tokenizer"].get("revision")
        folder = downloaded(recipe, OTHER_TOKENIZER, name=name, revision=revision, patterns=SMALL_FILES)
    elif name.startswith(SCHEME) and folder.name in TOKENIZERS:  # a package names files alone
        folder = folder.parent
    elif not folder.exists():
        raise RecipeError([recipe.problem(OTHER_TOKENIZER, f"{quote(name)} does not exist; check the path")])
    else:
        for file in sorted(folder.rglob("*")):
            refuse_link_out(recipe, file, OTHER_TOKENIZER)
    if not has_tokenizer(folder):
        raise RecipeError([recipe.problem(OTHER_TOKENIZER, NO_TOKENIZER[OTHER_TOKENIZER])])
    return folder


def _compared(recipe: Recipe, base: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Say how a tokenizer fits the base model in `base`; raises RecipeError where its ids do not."""
    rows, ids = _rows(recipe, base), tokenizer.get_vocab()
    last = max(ids, key=lambda token: ids[token])
    if rows is not None and ids[last] >= max(rows, len(ids)):
        fault = f"its {quote(last)} has the id {ids[last]}, beyond the base model's {rows} and after a gap"
        raise RecipeError([recipe.problem(OTHER_TOKENIZER, f"{fault}; {ADVICE}")])
    try:
        check_tokenizer(recipe, base)
        own = own_tokenizer(recipe, base) if has_tokenizer(base) else None
    except RecipeError as error:
        own, why = None, error.problems[0].message.partition(";")[0]
    else:
        why = "it has none"
    if own is None:
        _refuse_untrained(recipe, tokenizer, rows)
        yield f"tokenizer.name_or_path was not compared with the base model's own tokenizer: {why}"
        return
    yield _same_ids(recipe, own.get_vocab(), ids)
    if any(tokenized(own, text).input_ids != tokenized(tokenizer, text).input_ids for text in PROBES):
        yield "tokenizer.name_or_path tokenizes some texts otherwise than the base model's own tokenizer"


def _same_ids(recipe: Recipe, own: Mapping[str, int], ids: Mapping[str, int]) -> str:
    """Say that every token has its id; raises RecipeError where one has not."""
    differing = sorted((number, token) for token, number in own.items() if ids.get(token) != number)
    if differing:
        number, token = differing[0]
        example = f"such as {quote(token)}: {ids.get(token, 'none')}, not {number}"
        fault = f"{len(differing)} of the base model's {len(own)} tokens have other ids in it, {example}"
        raise RecipeError([recipe.problem(OTHER_TOKENIZER, f"{fault}; {ADVICE}")])
    more = f", and {len(ids) - len(own)} more" if len(ids) > len(own) else ""
    return f"tokenizer.name_or_path has the base model's {len(own)} tokens with the same ids{more}"


def _refuse_untrained(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, rows: int | None) -> None:
    """Raise RecipeError where the base model's vocabulary would grow by more than added tokens."""
    ids, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
    beyond = [token for token, number in ids.items() if rows is not None and number >= rows]
    if untrained := set(beyond) - added.keys():
        fault = (
            f"{len(untrained)} of its {len(ids)} tokens have ids beyond the base model's vocab_size of {rows}"
        )
        raise RecipeError([recipe.problem(OTHER_TOKENIZER, f"{fault}; {ADVICE}")])


def _rows(recipe: Recipe, base: Path) -> int | None:
    """The size of the base model's vocabulary; None where its config is not at hand."""
    if not (base / CONFIG).is_file():
        return None
    return getattr(load_config(recipe, base).get_text_config(decoder=True), "vocab_size", None)
