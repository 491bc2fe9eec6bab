"""What tuning has found, as plain JSON values, and kept in the cache for this machine and these versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loracook.estimate.estimate import Estimate
from loracook.machine.devices import computed_on
from loracook.machine.versions import versions
from loracook.store.files import read_sealed, write_sealed
from loracook.tuning.candidates import text_of
from loracook.tuning.measured import Row, Setting, Trial, refusal
from loracook.tuning.tune import Question, Tuned

FOLDER = "tuned"
LAST = ("again", "confirmed")
"""The trials of an answer at the end."""
JUDGED = ("against", "difference", "allowed", "gain", "rounded")
"""What is said of a row besides its setting and its trial."""
PLAIN = (
    "gain", "device", "kind", "limit", "load", "seconds", "when", "longest", "untried", "stopped", "known",
)  # fmt: skip
"""What is a plain JSON value of an answer already."""
DRIVER = Path("/proc/driver/nvidia/version")


def measured_here(question: Question) -> dict[str, Any]:
    """What an answer holds for besides what training reads: machine, versions, and what was asked."""
    driver = DRIVER.read_text("ascii", "replace") if DRIVER.exists() else ""
    machine = {"machine": platform.node(), "driver": driver, **computed_on(), **versions()}
    return {**machine, "memory": question.memory, "allowed": sorted(question.allowed)}


def lengths_digest(whole: Estimate) -> str | None:
    """The digest of the lengths of all rows; None where not every one is known."""
    rows = whole.rows
    return hashlib.sha256(rows.lengths.tobytes()).hexdigest() if rows and rows.exact else None


def keep(tuned: Tuned, question: Question, digest: str, *, whole: Estimate, cache: Path) -> None:
    """Keep an answer for the recipe whose training has this digest."""
    facts = measured_here(question)
    (cache / FOLDER).mkdir(parents=True, exist_ok=True)
    write_sealed(
        _file(facts, digest, cache), {"for": facts, "lengths": lengths_digest(whole), **as_json(tuned)}
    )


def known(question: Question, digest: str, *, whole: Estimate, cache: Path) -> Tuned | None:
    """The answer that is kept for a recipe, if its best settings still fit; None where there is none.

    Where the lengths of all rows are known, they have to be those that were measured. One that there
    was too little time for, or that other programs disturbed, is not the answer where there is more.
    """
    if not any((cache / FOLDER).glob(f"{digest}-*")):
        return None
    facts = measured_here(question)
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = read_sealed(_file(facts, digest, cache))
        lengths = lengths_digest(whole)
        if content["for"] != facts or (lengths and content["lengths"] != lengths):
            return None
        tuned = from_json(content)
        if (tuned.untried or tuned.doubts) and question.seconds > tuned.seconds:
            return None
        room = whole.device.bytes if question.memory is None else tuned.limit
        return None if refusal(tuned.best.trial, room) else replace(tuned, known=True)
    return None


def _file(facts: Mapping[str, Any], digest: str, cache: Path) -> Path:
    return cache / FOLDER / f"{digest}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]}.json"


def as_json(tuned: Tuned) -> dict[str, Any]:
    """What was found as plain JSON values."""
    return {
        "rows": [_row(row) for row in tuned.rows],
        "best": _row(tuned.best),
        **{name: trial and asdict(trial) for name in LAST for trial in [getattr(tuned, name)]},
        "doubts": tuned.doubts,
        **{name: getattr(tuned, name) for name in PLAIN},
    }


def from_json(content: Mapping[str, Any]) -> Tuned:
    """What `as_json` was made of."""
    named: dict[str, Any] = {name: content[name] for name in PLAIN}
    named["untried"] = tuple(content["untried"])
    for name in LAST:
        named[name] = content[name] and Trial.of(content[name])
    return Tuned(tuple(map(_read_row, content["rows"])), _read_row(content["best"]), **named)


def sections(setting: Setting) -> dict[str, dict[str, Any]]:
    """A setting as the sections of a recipe."""
    nested: dict[str, dict[str, Any]] = {}
    for (section, key), value in setting.items():
        nested.setdefault(str(section), {})[str(key)] = value
    return nested


def _row(row: Row) -> dict[str, Any]:
    speed = row.trial.speed()
    return {
        "setting": sections(row.setting),
        "tokens_per_second": round(speed, 1),
        "trained_tokens_per_second": round(speed * row.trial.trained_share, 1),
        **{name: getattr(row, name) for name in JUDGED},
        "trial": asdict(row.trial),
    }


def _read_row(content: Mapping[str, Any]) -> Row:
    setting = {
        (section, key): value for section, keys in content["setting"].items() for key, value in keys.items()
    }
    named = {name: content[name] for name in JUDGED}
    return Row(setting, Trial.of(content["trial"]), **named)


def note(estimate: Estimate, digest: str, cache: Path) -> str:
    """What a plan says of an answer that is kept for its recipe; empty where there is none."""
    recipe = estimate.recipe
    tuned = known(Question(recipe, None, 0.0, ()), digest, whole=estimate, cache=cache)
    if tuned is None or not tuned.best.setting or tuned.gain is None:
        return ""
    settings = text_of(tuned.best.setting)
    command = f"loracook tune {recipe.file} --minutes {tuned.seconds / 60:g} --write FILE"
    return f"tuned: {tuned.gain:.2f} times as fast with {settings}; {command}"
