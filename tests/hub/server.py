"""A hub on the loopback: what huggingface_hub and datasets ask of repositories, files, LFS objects and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Files = dict[str, bytes]
LARGE = (".safetensors",)
TOKEN = "canary.in.the.coal.mine.8231"
WHO = {
    "name": "me",
    "orgs": [{"name": "team", "roleInOrg": "write"}, {"name": "readers", "roleInOrg": "read"}],
    "auth": {"accessToken": {"role": "write"}},
}


@dataclass
class Repository:
    """A repository: the files of every commit, and the newest commit of every branch."""

    private: bool
    writable: bool = True
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    pull_requests: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: Files) -> str:
        """Put a new commit on a branch."""
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def files(self, branch: str = "main") -> Files:
        """What the branch holds, without the hub's own file."""
        return {
            path: text
            for path, text in self.commits[self.branches[branch]].items()
            if path != ".gitattributes"
        }


class Hub(ThreadingHTTPServer):
    """The hub; `faults` says what goes wrong, in turn, with a kind of request; `read` counts files by path."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.objects: Files = {}
        self.who: dict[str, Any] = WHO
        self.asked: list[str] = []
        self.read: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.ended = threading.Event()

    def create(self, repo_id: str, *, private: bool = True, files: Files | None = None) -> Repository:
        """Make a repository as the hub does, with its own file in it."""
        repository = self.repositories[repo_id] = Repository(private)
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"} | (files or {}))
        return repository

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about connections that are cut."""


class Handler(BaseHTTPRequestHandler):
    """One request; what is done with it is found in ROUTES by method and path."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer, or go wrong as `faults` says."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(address.query).items()}
        for kind, method, pattern in ROUTES:
            found = re.fullmatch(pattern, address.path)
            if found and method == self.command:
                self.server.asked.append(kind)
                return self._answer(kind, [unquote(part) for part in found.groups()])
        return self._send(404, {"error": f"no such route: {self.command} {address.path}"})

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def _answer(self, kind: str, parts: list[str]) -> None:
        faults = self.server.faults[kind]
        fault = faults.pop(0) if faults else ""
        if fault == "hang":
            self.server.ended.wait(20)
        if fault in ("cut", "hang"):
            return self._cut()
        if fault.isdigit():
            return self._send(int(fault), {"error": f"not now, {self.headers.get('Authorization')}"})
        if fault.startswith("later "):
            body = json.dumps({"error": "too many"}).encode()
            return self._write(429, body, {"Retry-After": fault.removeprefix("later ")})
        if fault in ("{}", "[]", "null", '"text"'):
            return self._send(200, fault)
        if fault == "page":
            return self._send(502, "<html>Bad Gateway</html>")
        if kind not in (*OPEN, "validate", "put") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid credentials in Authorization header"})
        status, answer = getattr(self, kind)(*parts)
        if isinstance(answer, tuple):
            content, oid = answer
            etag = hashlib.sha256(content).hexdigest()
            return self._write(status, content, {"ETag": f'"{etag}"', "X-Repo-Commit": oid})
        if fault == "done, then cut":
            return self._cut()
        return self._send(status, answer)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, answer: Any) -> None:
        text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        headers = {"X-Error-Code": answer["code"]} if isinstance(answer, dict) and "code" in answer else {}
        self._write(status, text, headers)

    def _write(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def whoami(self) -> tuple[int, Any]:
        return 200, self.server.who

    def create(self) -> tuple[int, Any]:
        asked = json.loads(self.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        url = f"{self.server.url}/{repo_id}"
        if repo_id in self.server.repositories:
            return 409, {"url": url, "error": "You already created this model repo"}
        self.server.create(repo_id, private=asked["visibility"] == "private")
        return 200, {"url": url}

    def info(self, repo_id: str, revision: str = "main") -> tuple[int, Any]:
        found = self._find(repo_id, revision)
        if isinstance(found, dict):
            return 404, found
        repository, oid = found
        siblings = [{"rfilename": path} for path in repository.commits[oid]]
        return 200, {"id": repo_id, "sha": oid, "private": repository.private, "siblings": siblings}

    def paths(self, repo_id: str, revision: str) -> tuple[int, Any]:
        repository, oid = self.server.repositories[repo_id], revision
        asked = parse_qs(self.body.decode())["paths"]
        files = repository.commits[repository.branches.get(oid, oid)]
        return 200, [_entry(path, files[path]) for path in asked if path in files]

    def file(self, repo_id: str, revision: str, path: str) -> tuple[int, Any]:
        found = self._find(repo_id, revision)
        if isinstance(found, dict):
            return 404, found
        repository, oid = found
        if path not in repository.commits[oid]:
            return 404, {"error": "Entry not found", "code": "EntryNotFound"}
        self.server.read[path] += self.command == "GET"
        return 200, (repository.commits[oid][path], oid)

    def tree(self, repo_id: str, revision: str, folder: str = "") -> tuple[int, Any]:
        found = self._find(repo_id, revision)
        if isinstance(found, dict):
            return 404, found
        repository, oid = found
        files = {
            path: content for path, content in repository.commits[oid].items() if path.startswith(folder)
        }
        if folder and not files:
            return 404, {"error": "Entry not found", "code": "EntryNotFound"}
        return 200, [_entry(path, content) for path, content in files.items()]

    def write_check(self, repo_id: str) -> tuple[int, Any]:
        writable = self.server.repositories[repo_id].writable
        return (200, {}) if writable else (403, {"error": "you may not write here"})

    def branch(self, repo_id: str, name: str) -> tuple[int, Any]:
        branches = self.server.repositories[repo_id].branches
        if name in branches:
            return 409, {"error": "Reference already exists"}
        branches[name] = branches["main"]
        return 200, {}

    def validate(self) -> tuple[int, Any]:
        return 200, {"errors": [], "warnings": []}

    def preupload(self, repo_id: str, revision: str) -> tuple[int, Any]:
        answers = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        return 200, {"files": answers}

    def batch(self, repo_id: str) -> tuple[int, Any]:
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.server.objects:
                upload = {"href": f"{self.server.url}/lfs/{entry['oid']}"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.server.url}/lfs-verify"}}
        return 200, {"transfer": "basic", "objects": objects}

    def put(self, oid: str) -> tuple[int, Any]:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return 400, {"error": "this is not what was announced"}
        self.server.objects[oid] = self.body
        return 200, {}

    def verify(self) -> tuple[int, Any]:
        return (200, {}) if json.loads(self.body)["oid"] in self.server.objects else (404, {"error": "lost"})

    def commit(self, repo_id: str, revision: str) -> tuple[int, Any]:
        repository = self.server.repositories[repo_id]
        header, *lines = (json.loads(line) for line in self.body.splitlines())
        parent = header["value"]["parentCommit"]
        if parent != repository.branches[revision]:
            return 412, {"error": "A commit has happened since. Please refresh and try again."}
        files = dict(repository.commits[parent])
        for line in lines:
            self._apply(line, files)
        return 200, self._committed(repo_id, repository, revision, files, header["value"]["summary"])

    def _apply(self, line: dict[str, Any], files: Files) -> None:
        value = line["value"]
        if line["key"] == "deletedFile":
            del files[value["path"]]
        else:
            large = line["key"] == "lfsFile"
            content = self.server.objects[value["oid"]] if large else base64.b64decode(value["content"])
            files[value["path"]] = content

    def _committed(
        self, repo_id: str, repository: Repository, revision: str, files: Files, summary: str
    ) -> dict[str, Any]:
        home = f"{self.server.url}/{repo_id}"
        if "create_pr" not in self.query:
            oid = repository.commit(revision, files)
            return {"commitOid": oid, "commitUrl": f"{home}/commit/{oid}"}
        repository.pull_requests.append(summary)
        number = len(repository.pull_requests)
        oid = repository.commit(f"refs/pr/{number}", files)
        return {
            "commitOid": oid,
            "commitUrl": f"{home}/commit/{oid}",
            "pullRequestUrl": f"{home}/discussions/{number}",
        }

    def discussions(self, repo_id: str) -> tuple[int, Any]:
        entries = [
            {
                "title": title,
                "num": number,
                "author": {"name": "me"},
                "createdAt": "2026-01-01T00:00:00.000Z",
                "status": "open",
                "repo": {"name": repo_id, "type": "model"},
                "isPullRequest": True,
            }
            for number, title in enumerate(self.server.repositories[repo_id].pull_requests, 1)
        ]
        return 200, {"discussions": entries, "count": len(entries), "start": 0}

    def _find(self, repo_id: str, revision: str) -> tuple[Repository, str] | dict[str, str]:
        repository = self.server.repositories.get(repo_id)
        if repository is None:
            return {"error": "Repository not found", "code": "RepoNotFound"}
        if repository.gated:
            return {"error": "Access to it is restricted", "code": "GatedRepo"}
        oid = revision if revision in repository.commits else repository.branches.get(revision)
        if oid is None:
            return {"error": "Invalid rev id", "code": "RevisionNotFound"}
        return repository, oid


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    if path.endswith(LARGE):
        oid = hashlib.sha256(content).hexdigest()
        return entry | {"oid": "0" * 40, "lfs": {"oid": oid, "size": len(content), "pointerSize": 130}}
    return entry | {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


REPOSITORY = "/api/(?:models|datasets)/([^/]+/[^/]+)"
OPEN = ("info", "tree", "paths", "file")
"""What may be asked without a token."""
ROUTES = (
    ("whoami", "GET", "/api/whoami-v2"),
    ("create", "POST", "/api/repos/create"),
    ("validate", "POST", "/api/validate-yaml"),
    ("info", "GET", REPOSITORY),
    ("info", "GET", f"{REPOSITORY}/revision/([^/]+)"),
    ("tree", "GET", f"{REPOSITORY}/tree/([^/]+)"),
    ("tree", "GET", f"{REPOSITORY}/tree/([^/]+)/(.+)"),
    ("paths", "POST", f"{REPOSITORY}/paths-info/([^/]+)"),
    ("file", "GET", "/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)"),
    ("file", "HEAD", "/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)"),
    ("write_check", "GET", f"{REPOSITORY}/auth-check/write"),
    ("branch", "POST", f"{REPOSITORY}/branch/([^/]+)"),
    ("preupload", "POST", f"{REPOSITORY}/preupload/([^/]+)"),
    ("commit", "POST", f"{REPOSITORY}/commit/([^/]+)"),
    ("discussions", "GET", f"{REPOSITORY}/discussions"),
    ("batch", "POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    ("put", "PUT", "/lfs/([0-9a-f]{64})"),
    ("verify", "POST", "/lfs-verify"),
)


@contextmanager
def serving(port: int = 0) -> Iterator[Hub]:
    """A running hub, at any port that is free where none is given."""
    hub = Hub(port)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        hub.shutdown()
        thread.join()
        hub.server_close()


@contextmanager
def as_endpoint(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Hub]:
    """A hub that this process and its children talk to, with a token and an empty cache."""
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HOME", str(home))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running
