"""The table of a sweep: what has become of each trial, and its file, from which a stopped sweep goes on."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev

from loracook.errors import LoracookError, MachineError
from loracook.planner import plan
from loracook.store.files import read_sealed, write_sealed
from loracook.store.read_back import NUMBER
from loracook.store.run_folder import check_run_folder
from loracook.sweep.file import Sweep
from loracook.sweep.measured import value_of
from loracook.sweep.points import Point, key

FOLDER, FILE, LOG = "sweeps", "sweep.json", "log.txt"
WAITING, RUNNING, STOPPED = "waiting", "running", "stopped"
FINISHED, ENDED, FAILED = "finished", "ended early", "failed"
SETTLED = (FINISHED, ENDED)
"""States in which a trial is not run again."""
ENDINGS = (*SETTLED, FAILED, STOPPED)
SHAPE = {
    "trials": [
        {"point": dict, "state": str, "value": NUMBER | None, "spread": NUMBER | None, "seconds": NUMBER,
         "step": int, "reason": str, "code": int}
    ]
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A trial: its values, what has become of it, the metric's mean over its seeds and how it spreads, the
    last step that it logged, and why it failed.
    """

    point: Point
    state: str = WAITING
    value: float | None = None
    spread: float | None = None
    seconds: float = 0.0
    step: int = 0
    reason: str = ""
    code: int = 0

    @property
    def settled(self) -> bool:
        """Whether the trial is not run again."""
        return self.state in SETTLED


@dataclass
class Table:
    """The trials of a sweep in the order in which they were first run, and the folder of their file."""

    sweep: Sweep
    runs: Path
    rows: list[Row] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the sweep's own files lie; the runs of its trials lie among all others."""
        # With a point: NAME-DIGEST is what the folder of a stage is called.
        return self.runs / FOLDER / f"{self.sweep.name}.{self.sweep.digest}"

    def write(self) -> None:
        """Write the file."""
        write_sealed(self.folder / FILE, {"trials": [asdict(row) for row in self.rows]})

    def best(self) -> Row | None:
        """The finished trial with the best value."""
        finished = [row for row in self.rows if row.state == FINISHED]
        return ranked(finished, self.sweep)[0] if finished else None

    def run_names(self, row: Row) -> list[str]:
        """The names of a trial's runs."""
        return [self.sweep.run_name(row.point, seed) for seed in self.sweep.seeds]


def ranked(rows: Sequence[Row], sweep: Sweep) -> list[Row]:
    """Finished trials, the best first."""
    sign = 1 if sweep.lower_is_better else -1
    return sorted(rows, key=lambda row: sign * (math.inf * sign if row.value is None else row.value))


def read_table(sweep: Sweep, runs: Path) -> Table:
    """The trials as earlier runs of the sweep have left them; raises MachineError for a corrupt file.

    What has finished is read from the records of the runs: a trial whose folder is gone runs again.
    """
    table = Table(sweep, runs)
    check_run_folder(table.folder)
    try:
        kept = read_sealed(table.folder / FILE, SHAPE)["trials"]
        known = {
            key(row["point"]): Row(**{name: row[name] for name in Row.__dataclass_fields__}) for row in kept
        }
    except FileNotFoundError:
        known = {}
    except (OSError, ValueError) as error:
        message = f"{table.folder / FILE} is corrupt; remove it to start the sweep over"
        raise MachineError(message) from error
    for point in sweep.points or [row.point for row in known.values()][: sweep.trials]:
        table.rows.append(_as_it_is(sweep, runs, known.get(key(point), Row(point))))
    return table


def _as_it_is(sweep: Sweep, runs: Path, row: Row) -> Row:
    if row.state == ENDED:
        return row
    try:
        values = [_value(sweep, runs, (row.point, seed)) for seed in sweep.seeds]
    except LoracookError:  # which the trial will say
        values = [None]
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return Row(row.point, seconds=row.seconds)
    return finished(row, found)


def finished(row: Row, values: Sequence[float]) -> Row:
    """The trial with the values that its seeds have reached."""
    spread = stdev(values) if len(values) > 1 else None
    return replace(row, state=FINISHED, value=fmean(values), spread=spread, reason="", code=0)


def _value(sweep: Sweep, runs: Path, run: tuple[Point, int | None]) -> float | None:
    """What a run has measured; None where it is not finished."""
    planned = plan(sweep.load_run(*run), runs)
    return None if planned.to_do else value_of(planned, sweep.metric)
