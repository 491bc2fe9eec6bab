"""What the YAML parser stumbled over, in plain words and at the place to mend."""

from __future__ import annotations

from typing import Protocol

import yaml


class Mark(Protocol):
    """A place in a text; lines and columns count from 0."""

    line: int
    column: int


# Each row: what libyaml or PyYAML says, what it means, and whether the place is where the thing began.
WORDS = (
    ("unknown escape", "this backslash stands for nothing; write '\\\\' or use single quotes", False),
    (
        "Unicode character escape",
        "this escape is no character; write one of '\\u0000' to '\\U0010ffff'",
        False,
    ),
    (
        "decimal number",
        "this backslash begins an escape that does not go on; write '\\\\' or use single quotes",
        False,
    ),
    ("quoted scalar", "this quote is never closed; write the closing quote", True),
    ("expected ',' or ']'", "this list is not closed where it should be; write ',' or ']'", True),
    ("expected ',' or '}'", "this mapping is not closed where it should be; write ',' or '}'", True),
    (
        "mapping values are not allowed",
        "a ':' is not possible here; put the text in quotes or check the indentation",
        False,
    ),
    (
        "sequence entries are not allowed",
        "a '-' is not possible here; start the list on a line of its own",
        False,
    ),
    (
        "cannot start any token",
        "text cannot start like this; put it in quotes, and indent with spaces, not tabs",
        False,
    ),
    ("could not find expected ':'", "this line has no ':'; write 'key: value'", True),
    ("document start", "this does not belong to what stands above; check the indentation", False),
    ("expected '-' indicator", "this does not belong to the list above; check the indentation", False),
    ("expected key", "a key is expected here; check the indentation, quotes and brackets", False),
    ("expected <block end>", "a key is expected here; check the indentation, quotes and brackets", False),
    ("node content", "a value is expected here; put text that starts like this in quotes", False),
    ("block scalar", "nothing may follow '|' or '>' on their line; write the text on the next line", False),
    ("anchor", "anchors are not read; write the value out", True),
    ("alias", "aliases are not read; write the value out", True),
    ("tag", "tags are not read; write the plain value, in quotes when it is text", True),
    ("directive", "lines that start with '%' are not read; remove this one", False),
    ("incompatible YAML document", "lines that start with '%' are not read; remove this one", False),
)
UNKNOWN = "this is not YAML that can be read; check the indentation, quotes and brackets"


def explain(error: yaml.YAMLError | ValueError | OverflowError) -> tuple[str, Mark | None]:
    """Plain words for a parser's error, and the place that they speak of."""
    context, problem = (str(getattr(error, name, None) or "") for name in ("context", "problem"))
    start, end = (getattr(error, name, None) for name in ("context_mark", "problem_mark"))
    for words, meaning, at_start in WORDS:
        if words in problem or words in context:
            return meaning, start if at_start and start else end
    return UNKNOWN, end
