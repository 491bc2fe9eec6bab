"""What a recipe from a stranger may not contain: secrets, forbidden locations, variables, slow patterns."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from loracook.errors import SECRET, Path, Problem, quote
from loracook.recipe.derived import OTHER_TOKENIZER
from loracook.recipe.locations import forbidden_location, invalid_hub_id, invalid_name, invalid_repo_id
from loracook.recipe.schema import entries

LOCATIONS = {"name_or_path", "path", "data_files", "gguf_file"} | {
    "chat_template",
    "dataset_path",
    "extends",
    "folder",
    "repo_id",
    "start_from",
}
PROSE = {"description", "template", "evaluate", "lm_eval", "tokenizer"}
VARIABLE = re.compile(r"\$\{[^}]*\}|\$[A-Za-z_]\w*|%[A-Za-z_]\w*%|\{\{.*\}\}|env:.*|\$\(.*\)", re.DOTALL)
TEMPLATE_FILE = re.compile(r"(?!\.{0,2}/).*\.(?:jinja2?|j2|txt)")
LONGEST_LOCATION = 400
LONGEST_PATTERN = 1000
REPEATED = re.compile(r"[*+}]\)*[*+{]|\\[1-9]|\(\?P=")


def untrusted_problems(data: Any) -> Iterator[Problem]:
    """Everything in a recipe's data, valid or not, that no recipe may contain."""
    for path, value in entries(data) if isinstance(data, dict) else ():
        yield from _secret(path, str(path[-1]))
        if isinstance(value, str):
            yield from _secret(path, value) or _variable(path, value) or _location(path, value)
    yield from _pattern(data)


def _secret(path: Path, text: str) -> list[Problem]:
    message = "looks like a secret; revoke it, remove it, and set it as an environment variable"
    return [Problem(path, message, "secret")] if SECRET.search(text) else []


def _variable(path: Path, text: str) -> list[Problem]:
    prose = bool(path) and path[0] in PROSE and path != OTHER_TOKENIZER
    if not path or prose or not VARIABLE.fullmatch(text.strip()):
        return []
    return [
        Problem(
            path,
            f"{quote(text)} looks like a variable, which recipes do not expand; write the value itself",
            "variable",
        )
    ]


def _location(path: Path, text: str) -> list[Problem]:
    if len(text) > LONGEST_LOCATION:  # the schema reports it
        return []
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    refusal = forbidden_location(text) if name in LOCATIONS else None
    refusal = refusal or (MORE_CHECKS[name](text) if name in MORE_CHECKS else None)
    return [Problem(path, f"{quote(text)} {refusal}", "location")] if refusal else []


def _template_file(text: str) -> str | None:
    return f"is not a template name; use {quote('./' + text)}" if TEMPLATE_FILE.fullmatch(text) else None


MORE_CHECKS: dict[str, Callable[[str], str | None]] = {
    "name_or_path": invalid_hub_id,
    "path": invalid_hub_id,
    "start_from": invalid_hub_id,
    "chat_template": _template_file,
    "gguf_file": invalid_name,
    "folder": invalid_name,
    "repo_id": invalid_repo_id,
}


def _pattern(data: Any) -> Iterator[Problem]:
    evaluate = data.get("evaluate") if isinstance(data, dict) else None
    pattern = evaluate.get("regex") if isinstance(evaluate, dict) else None
    message = _bad_pattern(pattern) if isinstance(pattern, str) and len(pattern) <= LONGEST_PATTERN else None
    if message:
        yield Problem(("evaluate", "regex"), message, "regex")


def _bad_pattern(pattern: str) -> str | None:
    import warnings

    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"invalid regular expression ({error}); fix it"
    if REPEATED.search(re.sub(r"\\\\|\\[^1-9]|\[[^]]*\]", "x", pattern)):
        return "nested repetition and back references can take exponential time; use a simpler expression"
    return None
