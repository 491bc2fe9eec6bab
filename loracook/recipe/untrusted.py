"""What a recipe from a stranger may not hold: secrets, places outside its folder, variables, bad patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from loracook.errors import SECRET, Path, Problem, quote
from loracook.recipe.schema import entries

PLACES = {"name_or_path", "path", "data_files", "chat_template", "gguf_file", "extends", "folder", "repo_id"}
PROSE = {"description", "template", "evaluate", "tokenizer"}
VARIABLE = re.compile(r"\$\{[^}]*\}|\$[A-Za-z_]\w*|%[A-Za-z_]\w*%|\{\{.*\}\}|env:.*|\$\(.*\)", re.DOTALL)
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(?=[^/]+/[^/]+$)")
TEMPLATE_FILE = re.compile(r"(?!\./).*\.(?:jinja2?|j2|txt)")
PACKAGE = re.compile(r"package://[\w.-]+(?:/(?!\.\.?(?:/|$))[\w. -]+)+", re.ASCII)
SECRET_LENGTH = 12
LONGEST_PATH = 400
LONGEST_PATTERN = 1000
LONGEST_NAME = 255  # bytes, on the file systems in use
HUB_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
NO_ID = re.compile(r"\.\.|--|\.git$|[.-](?:/|$)")
LOCAL_FILE = re.compile(r".*\.(?:jsonl?|csv|parquet|txt|gguf|ya?ml)|.*/.*/.*")
REPEATED = re.compile(r"[*+}]\)*[*+{]|\\[1-9]|\(\?P=")


def unsafe(data: Any) -> Iterator[Problem]:
    """Everything in a recipe's data, valid or not, that no recipe may hold."""
    for path, value in entries(data) if isinstance(data, dict) else ():
        yield from _secret(path, str(path[-1]))
        if isinstance(value, str):
            yield from _secret(path, value) or _variable(path, value) or _misplaced(path, value)
    yield from _pattern(data)


def _secret(path: Path, text: str) -> list[Problem]:
    if not SECRET.search(text):
        return []
    return [
        Problem(path, "this looks like a secret; remove it, revoke it, and use the environment", "secret")
    ]


def _variable(path: Path, text: str) -> list[Problem]:
    if not path or path[0] in PROSE or not VARIABLE.fullmatch(text.strip()):
        return []
    return [Problem(path, f"{quote(text)} would be a variable; write the value itself", "variable")]


def _misplaced(path: Path, text: str) -> list[Problem]:
    if len(text) > LONGEST_PATH:  # the schema says so
        return []
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    refusal = outside(text) if name in PLACES else None
    refusal = refusal or (OTHERWISE[name](text) if name in OTHERWISE else None)
    return [Problem(path, f"{quote(text)} {refusal}", "place")] if refusal else []


def outside(text: str) -> str | None:
    """What is wrong with a path that a recipe may not name, None when nothing is."""
    if text.startswith("package://"):
        return (
            None if PACKAGE.fullmatch(text) else "names no file; write 'package://distribution/folder/file'"
        )
    if HUB_PAGE.match(text):
        return f"is an address; write {quote(HUB_PAGE.sub('', text))}"
    if ADDRESS.match(text):
        return "is an address; write a hub id or a path that starts with './'"
    if text.startswith("~"):
        return "is somebody's home folder; write a path that starts with './'"
    if text.startswith("/") or re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return "is an absolute path; write a path that starts with './'"
    if "\\" in text:
        return "has a backslash in it; write '/' between folders"
    if any(len(part.encode(errors="surrogatepass")) > LONGEST_NAME for part in text.split("/")):
        return "is longer than the name of a file can be; write a shorter one"
    if ".." in text.split("/"):
        return "leads out of the recipe's folder; write a path that stays inside"
    return None


def _no_name(text: str) -> str | None:
    return f"is no name; write {quote('./' + text)}" if TEMPLATE_FILE.fullmatch(text) else None


def _no_id(text: str) -> str | None:
    if text.startswith(("./", "package://")) or not text:
        return None
    if HUB_ID.fullmatch(text) and not NO_ID.search(text) and not LOCAL_FILE.fullmatch(text):
        return None
    if LOCAL_FILE.fullmatch(text):
        return f"is no hub id; write {quote('./' + text)} when it is a file or folder of yours"
    return "is no hub id; write 'name' or 'organization/name'"


def _no_repository(text: str) -> str | None:
    refusal = (
        "is no hub id; write it without '--' or '..', and without '-', '.' or '.git' at the end of a part"
    )
    return refusal if NO_ID.search(text) else None


OTHERWISE = {"name_or_path": _no_id, "path": _no_id, "chat_template": _no_name, "repo_id": _no_repository}


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
        return f"this is no regular expression ({error}); mend it"
    if REPEATED.search(re.sub(r"\\\\|\\[^1-9]|\[[^]]*\]", "x", pattern)):
        return "a repetition in a repetition, or a back reference, can take for ever; write it plainly"
    return None
