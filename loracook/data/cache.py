"""Prepared rows kept under a key of everything that decides them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read import hub, sources
from loracook.data.tokenize.template import chat_template, template_file
from loracook.machine.versions import ROWS
from loracook.store.files import damage, manifest, seal, sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loracook.recipe.recipe import Recipe

SETTINGS = ("max_length", "packing", "packing_strategy", "eval_packing", "seed")
UNREAD = ("limits",)
STATISTICS = "statistics.json"


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Every local file that decides the rows: the data's, then the template's. Raises RecipeError."""
    data = [path for source in _sources(recipe) for path in source.files]
    template = template_file(recipe)
    return (*dict.fromkeys(data), *([template] if template else []))


def key(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> str:
    """The digest over everything that decides the prepared rows."""
    deciding = {
        "dataset": {name: value for name, value in recipe["dataset"].items() if name not in UNREAD},
        "template": recipe["template"],
        "train": {name: recipe["train"].get(name) for name in SETTINGS},
        "files": [sha256(path) for path in files(recipe)],
        "names": [found.name(path) for found in _sources(recipe) for path in found.files],
        "hub": [hub.fingerprint(found.asked, found.fail) for found in _sources(recipe) if not found.local],
        "tokenizer": _tokenizer(tokenizer),
        "libraries": {name: version(name) for name in ROWS},
        "code": [sha256(path) for path in sorted(Path(__file__).parent.glob("*.py"))],
        # Rows that are kept hold the date of the day they were made; streamed ones are made every time.
        "today": str(date.today()) if recipe["dataset"].get("streaming") and dated(tokenizer) else None,
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def dated(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes the date of the day."""
    return "strftime_now" in (chat_template(tokenizer) or "")


def is_prepared(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path) -> bool:
    """Whether the rows of a recipe are in the cache, whole or damaged."""
    return is_kept(cache / "data" / key(recipe, tokenizer))


def is_kept(folder: Path) -> bool:
    """Whether rows are in a folder, whole or damaged."""
    return (folder / STATISTICS).is_file()


def digest(folder: Path) -> str:
    """The digest of the prepared rows themselves, however they came about."""
    rows = {name: fact["sha256"] for name, fact in manifest(folder)["files"].items() if name != STATISTICS}
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `folder` once everything is written; else nothing stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield fresh
        _place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _place(fresh: Path, folder: Path) -> None:
    seal(fresh)
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        if damage(folder):  # else another process was first; its rows are the same
            shutil.rmtree(folder)
            fresh.rename(folder)


def _sources(recipe: Recipe) -> list[sources.Source]:
    own = sources.evaluation(recipe)
    return [*sources.training(recipe), *([own] if own else [])]


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for passing in ("padding", "truncation"):  # what the last call asked for, no part of the tokenizer
        backend[passing] = None
    return {
        "content": hashlib.sha256(json.dumps(backend).encode()).hexdigest(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": chat_template(tokenizer),
        "kind": type(tokenizer).__name__,
    }
