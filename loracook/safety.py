"""What a recipe from a stranger may not hold: secrets, places outside its folder, variables, bad patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from loracook.errors import SECRET, Path, Problem, quote
from loracook.tree import keys, leaves

Check = Callable[[Any], Iterator[Problem]]

PLACES = {"name_or_path", "path", "data_files", "chat_template", "gguf_file", "extends", "folder"}
IDS = {"name_or_path", "path", "repo_id"}
PROSE = {"description", "template", "evaluate", "tokenizer"}
VARIABLE = re.compile(r"\$\{[^}]*\}|\$[A-Za-z_]\w*|%[A-Za-z_]\w*%|\{\{.*\}\}|env:.*|\$\(.*\)", re.DOTALL)
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
HUB_ID = re.compile(r"[A-Za-z0-9_](?:[\w.-]{0,94}[\w])?(?:/[A-Za-z0-9_](?:[\w.-]{0,94}[\w])?)?", re.ASCII)
LOCAL_FILE = re.compile(r".*\.(?:jsonl?|csv|parquet|txt|gguf|ya?ml)|.*/.*/.*")


def secrets(data: Any) -> Iterator[Problem]:
    """Texts and keys that look like a token; the message does not show them."""
    written = [(path, value) for path, value in leaves(data) if isinstance(value, str)]
    named = [(path, str(path[-1])) for path in keys(data)]
    for path, text in named + written:
        if SECRET.search(text):
            yield Problem(
                path, "this looks like a secret; remove it, revoke it, and use the environment", "secret"
            )


def variables(data: Any) -> Iterator[Problem]:
    """Values that ask for a variable, a template or the environment; prose may speak of them."""
    for path, value in leaves(data):
        if isinstance(value, str) and path and path[0] not in PROSE and VARIABLE.fullmatch(value.strip()):
            yield Problem(path, f"{quote(value)} would be a variable; write the value itself", "variable")


def places(data: Any) -> Iterator[Problem]:
    """Paths that leave the recipe's folder, addresses, and ids that the hub could not have."""
    for path, text in leaves(data):
        if (
            isinstance(text, str)
            and (name := _name_of(path)) in PLACES | IDS
            and not VARIABLE.fullmatch(text)
        ):
            message = _outside(text) or (_not_an_id(text, name) if name in IDS else None)
            if message:
                yield Problem(path, f"{quote(text)} {message}", "place")


def _name_of(path: Path) -> str:
    return str(next((part for part in reversed(path) if isinstance(part, str)), ""))


def _outside(text: str) -> str | None:
    if text.startswith("package://"):
        return (
            None
            if re.fullmatch(r"package://[\w.-]+(/[\w.-]+)+", text) and "/../" not in text + "/"
            else ("names no file of a package; write 'package://distribution/folder/file'")
        )
    if ADDRESS.match(text):
        return "is an address; write a hub id or a path that starts with './'"
    if text.startswith("~"):
        return "is somebody's home folder; write a path that starts with './'"
    if text.startswith("/") or re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return "is an absolute path; write a path that starts with './'"
    if "\\" in text:
        return "has a backslash in it; write '/' between folders"
    if ".." in text.split("/"):
        return "leads out of the recipe's folder; write a path inside it, starting with './'"
    return None


def _not_an_id(text: str, name: str) -> str | None:
    if text.startswith(("./", "package://")) and name != "repo_id":
        return None
    if (
        text
        and HUB_ID.fullmatch(text)
        and ".." not in text
        and "--" not in text
        and not text.endswith(".git")
    ):
        return None
    if name != "repo_id" and LOCAL_FILE.fullmatch(text):
        return f"is no hub id; write {quote('./' + text)} when it is a file or folder of yours"
    return "is no hub id; write 'name' or 'organization/name'"


def patterns(data: Any) -> Iterator[Problem]:
    """Regular expressions that do not compile, or could take for ever."""
    evaluate = data.get("evaluate") if isinstance(data, dict) else None
    pattern = evaluate.get("regex") if isinstance(evaluate, dict) else None
    if not isinstance(pattern, str):
        return
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        yield Problem(("evaluate", "regex"), f"this is no regular expression ({error}); mend it", "regex")
        return
    if re.search(r"[*+}]\)?[*+{]|\\[1-9]|\(\?P=", pattern.replace("\\\\", "")):
        yield Problem(
            ("evaluate", "regex"), "a repetition of a repetition can take for ever; write it flat", "regex"
        )


CHECKS: tuple[Check, ...] = (secrets, variables, places, patterns)
