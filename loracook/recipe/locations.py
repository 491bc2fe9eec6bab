"""Whether a model or a data set is local or on the hub, and which locations a recipe may not name."""

import re
from collections.abc import Mapping
from typing import Any

from loracook.errors import quote
from loracook.store.folders import SCHEME

LOCAL = ("./", "../", SCHEME)
BUILDERS = {"json": ".json", "csv": ".csv", "parquet": ".parquet", "text": ".txt"}
"""Builders of `datasets` that `path` may name when `data_files` lists the files; the suffix each reads."""
NOT_FOR_LOCAL_FILES = "not used for local files; remove it"
LONGEST_NAME = 255  # bytes, on common file systems
HUB_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
NOT_AN_ID = re.compile(r"\.\.|--|\.git$|[.-](?:/|$)")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(?=[^/]+/[^/]+$)")
PACKAGE_FILE = re.compile(SCHEME + r"[\w.-]+(?:/(?!\.\.?(?:/|$))[\w. -]+)+", re.ASCII)
ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\")
FILE_LIKE = re.compile(r".*\.(?:jsonl?|csv|parquet|txt|gguf|ya?ml)|.*/.*/.*")


def is_local(source: Mapping[str, Any]) -> bool:
    """Whether a `base_model` section or a data source is on this machine; its spelling alone decides."""
    location = str(source.get("path") or source.get("name_or_path"))
    return location.startswith(LOCAL) or builder(source) is not None


def builder(source: Mapping[str, Any]) -> str | None:
    """The builder of datasets that a source names as its `path`, None for any other path."""
    path = str(source.get("path"))
    return path if path in BUILDERS and "data_files" in source else None


def forbidden_location(text: str) -> str | None:
    """Why a recipe may not name this location, and what to write instead; None when it may."""
    if text.startswith(SCHEME):
        usage = f"does not name a file; use '{SCHEME}distribution/folder/file'"
        return None if PACKAGE_FILE.fullmatch(text) else usage
    if HUB_PAGE.match(text):
        return f"is a URL; use the hub id {quote(HUB_PAGE.sub('', text))}"
    if URL.match(text):
        return "is a URL; use a hub id or a path starting with './'"
    if text.startswith("~"):
        return "is in a home folder; use a path starting with './'"
    if ABSOLUTE.match(text):
        return "is an absolute path; use a path starting with './'"
    if "\\" in text:
        return "contains a backslash; separate folders with '/'"
    if any(len(part.encode(errors="surrogatepass")) > LONGEST_NAME for part in text.split("/")):
        return "is longer than a file name can be; use a shorter one"
    if ".." in text.split("/"):
        return "is outside the recipe's folder; use a path inside it"
    return None


def invalid_hub_id(text: str) -> str | None:
    """Why a location that is not local cannot be a hub id, None when it can."""
    if text.startswith(("./", SCHEME)) or not text:
        return None
    if FILE_LIKE.fullmatch(text):
        return f"is not a hub id; use {quote('./' + text)} for a local file or folder"
    if HUB_ID.fullmatch(text) and not NOT_AN_ID.search(text):
        return None
    return "is not a hub id; use 'name' or 'organization/name'"


def invalid_repo_id(text: str) -> str | None:
    """Why the hub would refuse a repository of this name, None when it would not."""
    message = (
        "is not a valid repository id; remove '--' and '..', and '-', '.' or '.git' at the end of a part"
    )
    return message if NOT_AN_ID.search(text) else None
