"""The recipe that a run was made from, as the records of its stages state it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loracook.errors import MachineError, dotted
from loracook.errors import Path as Key
from loracook.recipe.allowed import NOTHING, Allowed
from loracook.recipe.recipe import Recipe
from loracook.recipe.schema import with_defaults
from loracook.recipe.schema_errors import schema_problems
from loracook.recipe.untrusted import untrusted_problems
from loracook.results.find import find, find_recipe
from loracook.store.folders import RUNS
from loracook.store.record import read_record
from loracook.store.runs import Run


@dataclass(frozen=True)
class Recorded:
    """The effective values by section, the origin of each by its dotted path, and what could be among them:
    `known` has the names of all sections that the finished stages read.
    """

    sections: Mapping[str, Any]
    origins: Mapping[str, str]
    known: frozenset[str]

    def origin(self, path: Key) -> str:
        """Who set the value at `path`."""
        return self.origins.get(dotted(path), "loracook")


def stated(
    text: str, runs: Path = RUNS, *, overrides: tuple[str, ...] = (), allowed: Allowed = NOTHING
) -> Recipe | Recorded:
    """The recipe that a user names, or the one that the run was made from that he names; errors as `find`."""
    recipe = find_recipe(text, runs, overrides=overrides, allowed=allowed)
    return recorded(find(text, runs)) if recipe is None else recipe


def recorded(run: Run) -> Recorded:
    """What the records of a run state; raises MachineError where that is no valid recipe."""
    from loracook.stages import STAGES

    sections: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for folder in run.stages.values():
        record = read_record(folder)
        sections |= record["sections"]
        origins |= record["origins"]
    known = frozenset[str]().union(*(STAGES[name].READS for name in run.stages if name in STAGES))
    data = {"version": 1, **_only(sections, known)}
    if any(untrusted_problems(data)) or any(schema_problems(data)):
        raise MachineError(f"the records of '{run.name}' do not hold a valid recipe; name the recipe itself")
    return Recorded(_only(with_defaults(data), known), origins, known)


def alike(sides: Sequence[Recipe | Recorded]) -> list[Recipe | Recorded]:
    """The same with the sections alone that all could have: a record knows nothing of stages to come."""
    known = [side.known for side in sides if isinstance(side, Recorded)]
    if not known:
        return list(sides)
    common = frozenset.intersection(*known)
    return [replace(side, sections=_only(side.sections, common)) for side in sides]


def _only(sections: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: section for name, section in sections.items() if name in names}
