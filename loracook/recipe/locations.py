"""Whether a model or a data set is local or on the hub, and which locations a recipe may not name."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from loracook.errors import Path, quote
from loracook.recipe.derived import OTHER_TOKENIZER, Data, all_sources, other_tokenizer, own_tasks
from loracook.store.folders import SCHEME

LOCAL = ("./", "../", "/", SCHEME)
BUILDERS = {"json": ".json", "csv": ".csv", "parquet": ".parquet", "text": ".txt"}
"""Builders of `datasets` that `path` may name when `data_files` lists the files; the suffix each reads."""
NOT_FOR_LOCAL_FILES = "not used for local files; remove it"
LONGEST_NAME = 255  # bytes, on common file systems
HUB_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
NOT_AN_ID = re.compile(r"\.\.|--|\.git$|[.-](?:/|$)")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(?=[^/]+/[^/]+$)")
PACKAGE_FILE = re.compile(SCHEME + r"[\w.-]+(?:/(?!\.\.?(?:/|$))[\w. -]+)+", re.ASCII)
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
PATTERN = re.compile(r"[*?[]")
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
        return "is in a home folder; use a path starting with './', or the whole path and --allow-path DIR"
    if WINDOWS.match(text):
        return "is a Windows path; use a path starting with './'"
    if "\\" in text:
        return "contains a backslash; separate folders with '/'"
    if any(len(part.encode(errors="surrogatepass")) > LONGEST_NAME for part in text.split("/")):
        return "is longer than a file name can be; use a shorter one"
    return None


def local_paths(data: Data) -> Iterator[tuple[Path, str]]:
    """Every file, folder or pattern on this machine that valid data names: where it stands, and the path."""
    if is_local(data["base_model"]):
        yield ("base_model", "name_or_path"), data["base_model"]["name_or_path"]
    if (tokenizer := other_tokenizer(data) or "").startswith(LOCAL):
        yield OTHER_TOKENIZER, tokenizer
    for at, source in all_sources(data):
        if is_local(source):
            yield from _paths_of(at, source)
    start = data.get("lora", {}).get("start_from", "")
    if start.startswith(LOCAL):
        yield ("lora", "start_from"), start
    for name, folder in data.get("evaluate", {}).get("adapters", {}).items():
        yield ("evaluate", "adapters", name), folder
    for at, task in own_tasks(data):
        yield (*at, "dataset_path"), task["dataset_path"]
    template = data.get("template", {}).get("chat_template", "")
    if template.startswith(LOCAL):
        yield ("template", "chat_template"), template


def _paths_of(at: Path, source: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    key = "data_files" if "data_files" in source else "path"
    several = isinstance(source[key], list)
    for index, pattern in enumerate(patterns(source)):
        yield (*at, key, *([index] if several else [])), pattern


def patterns(source: Mapping[str, Any]) -> list[str]:
    """The paths and patterns of a local source, relative to the recipe where they are not absolute."""
    folder = "" if builder(source) else str(source["path"])
    return [os.path.join(folder, name) for name in _data_files(source)] or [folder]


def data_files_outside(data: Data) -> Iterator[tuple[Path, str]]:
    """Every entry of data_files that is not inside its data set on the hub."""
    for at, source in all_sources(data):
        for index, name in enumerate([] if is_local(source) else _data_files(source)):
            if name.startswith("/") or ".." in name.split("/"):
                yield (*at, "data_files", *([index] if isinstance(source["data_files"], list) else [])), name


def _data_files(source: Mapping[str, Any]) -> list[str]:
    names = source.get("data_files", [])
    return [names] if isinstance(names, str) else list(names)


def is_pattern(text: str) -> bool:
    """Whether a path is a glob pattern."""
    return PATTERN.search(text) is not None


def invalid_hub_id(text: str) -> str | None:
    """Why a location that is not local cannot be a hub id, None when it can."""
    if text.startswith(LOCAL) or not text:
        return None
    if FILE_LIKE.fullmatch(text):
        return f"is not a hub id; use {quote('./' + text)} for a local file or folder"
    if HUB_ID.fullmatch(text) and not NOT_AN_ID.search(text):
        return None
    return "is not a hub id; use 'name' or 'organization/name'"


def invalid_name(text: str) -> str | None:
    """Why a text cannot be the name of a file or folder, None when it can."""
    return "is a path; use a name without '/'" if "/" in text else None


def invalid_repo_id(text: str) -> str | None:
    """Why the hub would refuse a repository of this name, None when it would not."""
    message = (
        "is not a valid repository id; remove '--' and '..', and '-', '.' or '.git' at the end of a part"
    )
    return message if NOT_AN_ID.search(text) else None
