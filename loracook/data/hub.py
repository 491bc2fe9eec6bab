"""Rows of a data set on the hub, through datasets' own loading and cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracook.data.rows import Place, Record
from loracook.errors import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Fail = Callable[[str, str], RecipeError]


def records(entry: Mapping[str, Any], fail: Fail) -> Iterator[Record]:
    """Every row of one split; raises what `fail` makes of a data set that cannot be had."""
    name = f"{entry['path']} {entry['split']}"
    for number, columns in enumerate(loaded(entry, fail), 1):
        yield Record(Place(name, number), columns)


def fingerprint(entry: Mapping[str, Any], fail: Fail) -> str:
    """What stands for the content of a hub data set: it changes with the commit, the files and the split."""
    found = loaded(entry, fail)
    return str(getattr(found, "_fingerprint", None) or _commit(entry))


def loaded(entry: Mapping[str, Any], fail: Fail) -> Dataset | IterableDataset:
    """The split, downloaded and memory-mapped, or streamed where the recipe says so."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    given = {key: entry[key] for key in ("name", "data_files", "revision") if key in entry}
    _refuse_others(entry, fail)
    try:
        return datasets.load_dataset(
            entry["path"], split=entry["split"], streaming=entry["streaming"], **given
        )
    except (ConnectionError, TimeoutError) as error:
        raise fail("path", f"the hub cannot be reached; {_OFFLINE}") from error
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError) as error:
        raise fail(
            "path", f"not found on the hub: {_first_line(error)}; a local path starts with './'"
        ) from error
    except HfHubHTTPError as error:
        raise fail("path", f"the hub refused it: {_first_line(error)}") from error
    except ValueError as error:
        raise fail(_blamed(str(error), given), _first_line(error)) from error


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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _blamed(message: str, given: Mapping[str, Any]) -> str:
    if "split" in message.lower():
        return "split"
    return "name" if "config" in message.lower() else next(iter(given), "path")
