"""Rows of a data set on the hub, through datasets' own loading and cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.read.rows import Place, Record
from loracook.errors import RecipeError, UnreachableError
from loracook.hub.failures import rejection, unreachable
from loracook.machine.faults import machine_fault

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Fail = Callable[[str, str], RecipeError]
GIVEN = ("name", "data_files", "revision")


def records(entry: Mapping[str, Any], fail: Fail) -> Iterator[Record]:
    """Every row of one split; raises what `fail` makes of a data set that cannot be had."""
    name = f"{entry['path']} {entry['split']}"
    rows = loaded(entry, fail)
    with asking(entry, fail):  # streamed rows are asked for one after the other
        for number, columns in enumerate(rows, 1):
            yield Record(Place(name, number), columns)


def fingerprint(entry: Mapping[str, Any], fail: Fail) -> str:
    """What stands for the content of a hub data set: it changes with the commit, the files and the split."""
    found = loaded(entry, fail)
    with asking(entry, fail):
        return str(getattr(found, "_fingerprint", None) or _commit(entry))


def loaded(entry: Mapping[str, Any], fail: Fail) -> Dataset | IterableDataset:
    """The split, downloaded and memory-mapped, or streamed where the recipe says so."""
    import datasets

    given = {key: entry[key] for key in GIVEN if key in entry}
    _refuse_others(entry, fail)
    with asking(entry, fail):
        return datasets.load_dataset(
            entry["path"], split=entry["split"], streaming=entry["streaming"], **given
        )


@contextmanager
def asking(entry: Mapping[str, Any], fail: Fail) -> Iterator[None]:
    """Say what datasets and the hub raise where the recipe names the data set.

    Raises:
        UnreachableError: the hub cannot be reached.
        RecipeError: it has no such data set, or one that cannot be read.
    """
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except DatasetNotFoundError as error:
        raise fail("path", _not_found(error)) from error
    except (HTTPError, OSError, ValueError, DatasetsError) as error:
        if why := unreachable(error):
            raise UnreachableError(fail("path", f"{why}; {_OFFLINE}").problems) from error
        if machine_fault(error, []):  # this machine's, not the hub's
            raise
        raise fail(*_said(error, entry)) from error


def _said(error: Exception, entry: Mapping[str, Any]) -> tuple[str, str]:
    """The key that an error is about, and its words."""
    if no := rejection(error):
        return "path", f"the hub refused it: {_first_line(no)}"
    if isinstance(error, FileNotFoundError):
        return "path", _not_found(error)
    if isinstance(error, ValueError):
        return _blamed(str(error), [key for key in GIVEN if key in entry]), _first_line(error)
    return "path", f"it cannot be read: {_first_line(error.__cause__ or error)}"


def _not_found(error: Exception) -> str:
    return f"not found on the hub: {_first_line(error)}; a local path starts with './'"


def _commit(entry: Mapping[str, Any]) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(entry["path"], revision=entry.get("revision")).sha)


def _refuse_others(entry: Mapping[str, Any], fail: Fail) -> None:
    """datasets would read a folder of that name, a builder's arbitrary files or a URL in place of the hub."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if Path(entry["path"]).exists():
        raise fail(
            "path", f"a hub id, and the working folder holds a '{entry['path']}', too; run from elsewhere"
        )
    if entry["path"] in _PACKAGED_DATASETS_MODULES:
        raise fail("path", "no data set on the hub; a local file starts with './'")
    names = entry.get("data_files", [])
    for name in [names] if isinstance(names, str) else names:
        if "://" in name or name.startswith("/") or ".." in name.split("/"):
            raise fail("data_files", f"'{name}' is no file of the data set")


_OFFLINE = "download it once where there is a network, or name local files (./rows.jsonl)"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _blamed(message: str, given: list[str]) -> str:
    if "split" in message.lower():
        return "split"
    return "name" if "config" in message.lower() else next(iter(given), "path")
