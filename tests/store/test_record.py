from pathlib import Path
from typing import Any

import pytest

from loracook.errors import MachineError
from loracook.store.files import file_facts
from loracook.store.record import RECORD, SHAPE, read_metrics, read_result, why_not_done, write_record
from tests.records import record

VALUES = ([], {"x": 1}, "x", None, [[]] * 3)


@pytest.mark.parametrize("key", SHAPE)
def test_a_record_of_another_shape_is_corrupt(key: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("salt")
    whole = record(files=file_facts(tmp_path))
    write_record(tmp_path, whole)
    assert why_not_done(tmp_path, ()) is None

    without = {name: value for name, value in whole.items() if name != key}
    for other in (without, *(whole | {key: value} for value in VALUES)):
        if type(other.get(key)) is not type(whole[key]):
            write_record(tmp_path, other)
            assert why_not_done(tmp_path, ()) == f"{RECORD} is corrupt"


@pytest.mark.parametrize("result", [{}, {"url": []}, {"url": {"x": 1}}, {"url": None}])
def test_a_result_of_another_shape_is_refused(result: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path, record(result=result))
    with pytest.raises(MachineError, match=r"record.json is corrupt; remove .* to run the stage again"):
        read_result(tmp_path, {"url": str})


FIGURES: dict[str, Any] = {
    "base": {"loss": 2.0}, "adapter": {"loss": 1.5}, "rows": {"loss": 20},
    "intervals": {"loss": {"base": [1.9, 2.1]}}, "wins": {"loss": {"adapter": 20}}, "ended": {"base": 1.0},
    "answer_tokens": {"base": None}, "adapters": {},
}  # fmt: skip
MEASURED = FIGURES | {"also": {"general": FIGURES}, "also_trained": None, "notes": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"base": []},
        {"adapter": {}},
        {"adapter": {"loss": "x"}},
        {"rows": None},
        {"also_trained": "x"},
        {"notes": [1]},
        {"intervals": {"loss": 1}},
        {"also": {"general": FIGURES | {"adapter": {}}}},
        {"also": {"general": 1}},
    ],
)
def test_metrics_of_another_shape_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path, record(result=MEASURED))
    assert read_metrics(tmp_path) == MEASURED

    write_record(tmp_path, record(result=MEASURED | changes))
    with pytest.raises(MachineError, match=r"record.json is corrupt"):
        read_metrics(tmp_path)
