"""The record of a finished stage: written last, sealed, and compared with the files in its folder; and the
error that is kept of one that failed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loracook.errors import LoracookError, MachineError, StoppedError, clean_lines, shorten
from loracook.store.files import mismatch, read_sealed, write_sealed
from loracook.store.read_back import FACTS, NUMBER, check_names, check_shape

RECORD, FAILURE = "record.json", "failure.json"
LONGEST = 2000
"""Characters of an error that are kept; a stranger's may have more."""
SHAPE = {
    "stage": str, "digest": str, "name": str, "finished": str, "seconds": NUMBER, "sections": dict,
    "origins": {str: str}, "result": dict, "before": {str: {str: str}}, "versions": {str: str},
    "files": FACTS,
}  # fmt: skip
"""What every record has."""
BOUNDS = {str: {str: [NUMBER]}}
MEASURED = {
    "base": {str: NUMBER}, "adapter": {str: NUMBER}, "rows": {str: int}, "intervals": BOUNDS,
    "wins": {str: {str: int}}, "ended": {str: NUMBER | None}, "answer_tokens": {str: NUMBER | None},
    "adapters": {str: {str: NUMBER}},
}  # fmt: skip
"""What an evaluation states of each set of rows."""


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a stage, which marks it as done."""
    write_sealed(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a finished stage; raises ValueError when it is corrupt."""
    record = read_sealed(folder / RECORD, SHAPE)
    check_names(name.removeprefix("../") for name in record["files"])  # a folder beside it is published to
    return record


@contextmanager
def keeping_failure(folder: Path, before: Iterable[Path]) -> Iterator[None]:
    """Leave in the folder of a stage why it failed, where it did; a signal only stops it."""
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        with suppress(OSError):  # on a full disk, which the error says
            names = [path.name for path in before]
            write_sealed(folder / FAILURE, {"error": reason(error), "before": names})
        raise


def reason(error: Exception) -> str:
    """Why something failed, in words that are safe to keep."""
    said = str(error) if isinstance(error, LoracookError) else f"{type(error).__name__}: {error}"
    return shorten(clean_lines(said), LONGEST)


def read_failure(folder: Path) -> tuple[str, list[str]]:
    """Why a stage failed, empty where it did not, and the names of the folders of the stages it read."""
    try:
        failure = read_sealed(folder / FAILURE, {"error": str, "before": [str]})
    except (OSError, ValueError):
        return "", []
    return shorten(failure["error"], LONGEST), failure["before"]


def own_fault(folder: Path, record: Mapping[str, Any], *, since: int) -> str | None:
    """What is wrong with the files in the folder of a stage, see `mismatch`; later stages may have replaced
    what it published beside it.
    """
    own = {name: fact for name, fact in record["files"].items() if not name.startswith("../")}
    return mismatch(folder, own, since=since)


def read_result(folder: Path, shape: Any) -> dict[str, Any]:
    """The result in the record of a finished stage; raises MachineError when it is not of that shape."""
    result: dict[str, Any] = read_record(folder)["result"]
    try:
        check_shape(result, shape)
    except ValueError as error:
        raise MachineError(f"{folder / RECORD} is corrupt; remove {folder} to run the stage again") from error
    return result


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics in the record of an evaluation: the same of both models, and the rows behind each."""
    measured = read_result(
        folder, MEASURED | {"also_trained": int | None, "also": {str: MEASURED}, "notes": [str]}
    )
    read_result(folder, {"also": {name: _same(each) for name, each in measured["also"].items()}})
    return read_result(folder, _same(measured))


def _same(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of figures whose other tables have the metrics of the base model."""
    return {name: dict.fromkeys(measured["base"], NUMBER) for name in ("adapter", "rows")}


def weight_hashes(stages: Iterable[Path]) -> dict[str, dict[str, str]]:
    """SHA-256 of every safetensors file of finished stages, by folder name and file name."""
    hashes = {}
    for folder in stages:
        with suppress(OSError, ValueError):
            files = read_record(folder)["files"]
            weights = (name for name in files if name.endswith(".safetensors"))
            hashes[folder.name] = {name: files[name]["sha256"] for name in weights}
    return hashes


def why_not_done(folder: Path, before: Iterable[Path]) -> str | None:
    """Why a stage has to run again, "" when it has not run yet, None when it is done.

    Sizes are always compared, hashes only of files changed after the record was written: the change time
    (ctime) cannot be set back, and 14 GB of untouched weights cost nothing to check. Earlier stages
    (`before`) may have been run again since then; that only matters when their weights differ now.
    """
    try:
        record = read_record(folder)
        written = (folder / RECORD).stat().st_ctime_ns
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError):
        return f"{RECORD} is corrupt"
    if problem := mismatch(folder, record["files"], since=written):
        return problem
    hashes = weight_hashes(before)
    changed = (name for name in hashes if hashes[name] != record["before"].get(name))
    return next((f"the weights in {name} have changed" for name in changed), None)
