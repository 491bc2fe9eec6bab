"""Rows of a dataset on the Hub, loaded and cached by the datasets library."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read.columnar import row_converter
from loracook.data.read.rows import EVERY, Place, Record
from loracook.errors import RecipeError, UnreachableError
from loracook.hub.failures import rejection, unreachable
from loracook.machine import upstream
from loracook.machine.faults import machine_fault

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Fail = Callable[[str, str], RecipeError]
LOAD_KEYS = ("name", "data_files", "revision")
BLAMED = {"split": "split", "name": "config"}
"""The key that an error is about, and the word that it contains."""
OFFLINE = "download it once where there is a network, or use local files (./rows.jsonl)"


def records(entry: Mapping[str, Any], fail: Fail, wanted: Iterator[bool] = EVERY) -> Iterator[Record]:
    """The wanted rows of one split; `fail` makes the error for a dataset that cannot be loaded."""
    name = f"{entry['path']} {entry['split']}"
    rows = load(entry, fail)
    plain = row_converter(rows.features.arrow_schema if rows.features else None)
    with translated_errors(entry, fail):  # streamed rows are requested one after the other
        for number, columns in itertools.compress(enumerate(rows, 1), wanted):
            yield Record(Place(name, number), plain(columns))


def fingerprint(entry: Mapping[str, Any], fail: Fail) -> str:
    """A string that changes with the content of a Hub dataset: its commit, its files and the split."""
    from huggingface_hub import HfApi

    dataset = load(entry, fail)
    with translated_errors(entry, fail):
        commit = upstream.dataset_fingerprint(dataset)
        return str(commit or HfApi().dataset_info(entry["path"], revision=entry.get("revision")).sha)


def load(entry: Mapping[str, Any], fail: Fail) -> Dataset | IterableDataset:
    """The split, downloaded and memory-mapped, or streamed if the recipe says so."""
    import datasets

    options = {key: entry[key] for key in ("split", "streaming", *LOAD_KEYS) if key in entry}
    _refuse_other_sources(entry, fail)
    with translated_errors(entry, fail):
        return datasets.load_dataset(entry["path"], **options)


@contextmanager
def translated_errors(entry: Mapping[str, Any], fail: Fail) -> Iterator[None]:
    """Turn the errors of datasets and the Hub into ones that point at the recipe.

    Raises:
        UnreachableError: the Hub cannot be reached.
        RecipeError: there is no such dataset, or it cannot be read.
    """
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except DatasetNotFoundError as error:
        raise fail("path", _not_found(error)) from error
    except (HTTPError, OSError, ValueError, DatasetsError) as error:
        if why := unreachable(error):
            raise UnreachableError(fail("path", f"{why}; {OFFLINE}").problems) from error
        if machine_fault(error, []):  # this machine's fault, not the Hub's
            raise
        raise fail(*_key_and_message(error, entry)) from error


def _key_and_message(error: Exception, entry: Mapping[str, Any]) -> tuple[str, str]:
    """The key that an error is about, and its message."""
    if response := rejection(error):
        return "path", f"the Hub refused access: {_first_line(response)}"
    if isinstance(error, FileNotFoundError):
        return "path", _not_found(error)
    if isinstance(error, ValueError):
        blamed = [key for key, word in BLAMED.items() if word in str(error).lower()]
        return [*blamed, *(key for key in LOAD_KEYS if key in entry), "path"][0], _first_line(error)
    return "path", f"cannot read the dataset: {_first_line(error.__cause__ or error)}"


def _not_found(error: Exception) -> str:
    return f"not found on the Hub: {_first_line(error)}; a local path starts with './'"


def _refuse_other_sources(entry: Mapping[str, Any], fail: Fail) -> None:
    """Refuse what load_dataset would not read from the Hub: local folders, builders and URLs."""
    path = entry["path"]
    if Path(path).exists():
        message = f"ambiguous: a Hub id, but the working directory contains '{path}'; run from another one"
        raise fail("path", message)
    if path in upstream.dataset_builders():
        raise fail("path", "not a dataset on the Hub; a local file starts with './'")
    names = entry.get("data_files", [])
    for name in [names] if isinstance(names, str) else names:
        if "://" in name or name.startswith("/") or ".." in name.split("/"):
            raise fail("data_files", f"'{name}' is not a file of the dataset")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
