"""The cache of prepared rows, by a key over everything that decides them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read import hub, sources
from loracook.data.tokenize.template import chat_template, template_file
from loracook.machine.versions import ROWS, installed, is_complete
from loracook.recipe.recipe import Recipe
from loracook.store.files import damage, manifest, seal, sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAIN_KEYS = ("max_length", "packing", "packing_strategy", "eval_packing", "seed")
CODE = (
    *("data/prepare.py", "data/part.py", "data/order.py"),
    *("data/read/*.py", "data/tokenize/*.py", "recipe/derived.py"),
)
"""The modules that decide what the prepared rows are; derived decides which rows are held out, and which
packing strategies split long ones."""
DECIDE_NOTHING = ("data/read/propose.py", "data/tokenize/sandbox.py", "data/tokenize/turns.py")
"""Modules beside those that only advise or refuse, or serve evaluation."""
STATISTICS = "statistics.json"
KEY = re.compile(r"[0-9a-f]{16}")
"""The name of a folder of prepared rows."""


def files(recipe: Recipe) -> tuple[Path, ...]:
    """Every local file that decides the rows: the data files, then the template. Raises RecipeError."""
    data = [path for source in _sources(recipe) for path in source.files]
    template = template_file(recipe)
    return (*dict.fromkeys(data), *([template] if template else []))


def hub_datasets(recipe: Recipe) -> tuple[str, ...]:
    """The datasets on the Hub that rows come from, those for evaluation included, each once."""
    return tuple(dict.fromkeys(source.entry["path"] for source in _sources(recipe) if not source.local))


def cached_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path) -> Path:
    """The folder of the prepared rows inside `cache`, whether or not they are there yet."""
    return cache / "data" / cache_key(recipe, tokenizer)


def cache_key(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> str:
    """The digest over everything that decides the prepared rows."""
    all_sources = _sources(recipe)
    content = {
        "dataset": {name: value for name, value in recipe["dataset"].items() if name != "limits"},
        "template": recipe["template"],
        "train": {name: recipe["train"].get(name) for name in TRAIN_KEYS},
        "files": [sha256(path) for path in files(recipe)],
        "names": [source.name(path) for source in all_sources for path in source.files],
        "hub": [hub.fingerprint(source.hub_entry, source.fail) for source in all_sources if not source.local],
        "tokenizer": _tokenizer(tokenizer),
        **_preparer(),
        # Cached rows contain the date of the day they were prepared; streamed ones are prepared every time.
        "today": str(date.today()) if recipe["dataset"].get("streaming") and is_dated(tokenizer) else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _preparer() -> dict[str, Any]:
    """What decides how rows are prepared, whatever the recipe."""
    versions = {name: installed(name) for name in ("loracook", *ROWS)}
    return {"versions": versions, "code": [sha256(path) for path in code()]}


def outdated(cache: Path) -> Iterator[Path]:
    """The folders of prepared rows inside `cache` that other versions made: these ones never read them."""
    if not is_complete():  # another environment's, which this one cannot judge
        return
    now = _preparer()
    for folder in sorted((cache / "data").glob("*")):
        with suppress(OSError, ValueError):
            ours = KEY.fullmatch(folder.name) and not folder.is_symlink()
            if ours and manifest(folder).get("prepared_by") != now:
                yield folder


def code() -> list[Path]:
    """The source files that decide what the prepared rows are."""
    package = Path(__file__).parent.parent
    found = [path for pattern in CODE for path in sorted(package.glob(pattern))]
    return [path for path in found if path.relative_to(package).as_posix() not in DECIDE_NOTHING]


def is_dated(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes today's date."""
    return "strftime_now" in (chat_template(tokenizer) or "")


def is_prepared(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, cache: Path) -> bool:
    """Whether the prepared rows of a recipe are in the cache, intact or damaged."""
    return (cached_rows(recipe, tokenizer, cache) / STATISTICS).is_file()


def rows_digest(folder: Path) -> str:
    """The digest of the prepared rows themselves, independent of how they were prepared."""
    rows = {name: fact["sha256"] for name, fact in manifest(folder)["files"].items() if name != STATISTICS}
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` on success and is removed on failure."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        seal(temporary, prepared_by=_preparer())
        _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        if damage(folder):  # otherwise another process was first; its rows are the same
            shutil.rmtree(folder)
            temporary.rename(folder)


def _sources(recipe: Recipe) -> list[sources.Source]:
    evaluation = sources.evaluation(recipe)
    return [*sources.training(recipe), *([evaluation] if evaluation else [])]


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for transient in ("padding", "truncation"):  # options of the last call, not part of the tokenizer
        backend[transient] = None
    return {
        "content": hashlib.sha256(json.dumps(backend).encode()).hexdigest(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": chat_template(tokenizer),
        "kind": type(tokenizer).__name__,
    }
