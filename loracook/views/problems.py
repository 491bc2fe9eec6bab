"""Problems as text, JSON, GitHub annotations and SARIF 2.1.0 (code scanning)."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from loracook.errors import Position, Problem, clean, dotted

NOWHERE = Position("", 1, 1, 2)
SARIF = "https://json.schemastore.org/sarif-2.1.0-rtm.5.json"
HOME = "https://github.com/loracook/loracook"


def as_text(problems: Sequence[Problem]) -> str:
    """One line per problem."""
    return "\n".join(map(str, problems))


def as_json(problems: Sequence[Problem]) -> str:
    """A JSON list with one object per problem."""
    return json.dumps([_fields(problem) for problem in problems], indent=2)


def as_github(problems: Sequence[Problem]) -> str:
    """Workflow commands that annotate a pull request; text in them is escaped."""
    return "\n".join(map(_command, problems))


def as_sarif(problems: Sequence[Problem]) -> str:
    """A SARIF 2.1.0 log with one run."""
    rules = [{"id": rule} for rule in sorted({_rule(problem) for problem in problems})]
    driver = {"name": "loracook", "informationUri": HOME, "rules": rules}
    results = list(map(_result, problems))
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SARIF, "version": "2.1.0", "runs": [run]}, indent=2)


FORMATS: dict[str, Callable[[Sequence[Problem]], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}


def _fields(problem: Problem) -> dict[str, Any]:
    position = problem.position or NOWHERE
    return {
        "file": clean(position.file),
        "line": position.line,
        "column": position.column,
        "end_column": position.end_column,
        "path": dotted(problem.path),
        "severity": problem.severity,
        "rule": _rule(problem),
        "message": clean(problem.message),
    }


def _text(problem: Problem) -> str:
    return ": ".join(filter(None, (dotted(problem.path), problem.message)))


def _rule(problem: Problem) -> str:
    return problem.rule or "recipe"


def _command(problem: Problem) -> str:
    at = problem.position or NOWHERE
    location = {"file": at.file, "line": at.line, "col": at.column, "endColumn": at.end_column}
    properties = {**location, "title": f"loracook: {_rule(problem)}"}
    written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{problem.severity} {written}::{_data(_text(problem))}"


def _data(text: object) -> str:
    return clean(str(text)).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: object) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _result(problem: Problem) -> dict[str, Any]:
    position = problem.position or NOWHERE
    region = {"startLine": position.line, "startColumn": position.column, "endColumn": position.end_column}
    location = {"artifactLocation": {"uri": _uri(position.file)}, "region": region}
    return {
        "ruleId": _rule(problem),
        "level": problem.severity,
        "message": {"text": clean(_text(problem))},
        "locations": [{"physicalLocation": location}],
    }


def _uri(file: str) -> str:
    from urllib.parse import quote

    return quote(clean(file), safe="/")
