"""The values that the trials of a sweep are trained with: every combination, draws, or the ends of ranges."""

import json
import math
import random
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

Point = dict[str, Any]
"""A value for each parameter, by its dotted key."""
Parameters = Mapping[str, Mapping[str, Any]]
MOST = 1000
"""Trials of a sweep, each of which is checked before the first one starts."""
SEED = 0
TRIES = 100
"""Draws for each trial before its values count as used up."""


def key(point: Point) -> str:
    """A point as text by which it is known."""
    return json.dumps(point, sort_keys=True)


def grid(parameters: Parameters) -> list[Point]:
    """Every combination of the values, one more than MOST at the most."""
    return _combined({name: part["values"] for name, part in parameters.items()}, MOST + 1)


def ends(parameters: Parameters) -> list[Point]:
    """Combinations of all values and of both ends of every range, MOST at the most."""
    return _combined({name: list(_ends(part)) for name, part in parameters.items()}, MOST)


def draws(parameters: Parameters, count: int) -> list[Point]:
    """So many different random points, the same each time; fewer where there are no more."""
    generator, found = random.Random(SEED), dict[str, Point]()
    for _ in range(count * TRIES):
        if len(found) == count:
            break
        point = {name: _drawn(part, generator) for name, part in parameters.items()}
        found.setdefault(key(point), point)
    return list(found.values())


def rounded(value: float) -> float:
    """A drawn number with four significant digits: more make no difference, and are hard to read."""
    return float(f"{value:.4g}")


def _combined(choices: Mapping[str, list[Any]], most: int) -> list[Point]:
    return [dict(zip(choices, each, strict=True)) for each in islice(product(*choices.values()), most)]


def _ends(part: Mapping[str, Any]) -> Iterator[Any]:
    yield from part["values"] if "values" in part else (part["min"], part["max"])


def _drawn(part: Mapping[str, Any], generator: random.Random) -> Any:
    if "values" in part:
        return generator.choice(part["values"])
    low, high = part["min"], part["max"]
    match part["distribution"]:
        case "int_uniform":
            return generator.randint(low, high)
        case "log_uniform":
            return rounded(math.exp(generator.uniform(math.log(low), math.log(high))))
        case _:
            return rounded(generator.uniform(low, high))


def suggested(parameters: Parameters, config: Mapping[str, Any]) -> Point:
    """The point that a search suggests: listed values are JSON in it, see `as_suggestion`."""
    return {name: _suggested(part, config[name]) for name, part in parameters.items()}


def as_suggestion(parameters: Parameters, point: Point) -> dict[str, Any]:
    """A point as a search knows it, in which a value may be of any kind."""
    return {
        name: json.dumps(point[name]) if "values" in part else point[name]
        for name, part in parameters.items()
    }


def _suggested(part: Mapping[str, Any], value: Any) -> Any:
    if "values" in part:
        return json.loads(value)
    return rounded(value) if isinstance(value, float) else value
