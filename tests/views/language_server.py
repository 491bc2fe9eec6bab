"""A client of yaml-language-server, as an editor is one: what it shows and inserts in a recipe."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

ANSWERS_WITHIN = 30.0
"""Seconds."""


class LanguageServer:
    """A running server that reads every YAML file with one schema."""

    def __init__(self, command: str, schema: Path) -> None:
        self.process = subprocess.Popen([command, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.received, self.published, self.asked = queue.Queue[dict[str, Any]](), dict[str, Any](), 0
        self.settings = {"schemas": {schema.as_uri(): "*.yaml"}, "schemaStore": {"enable": False}}
        threading.Thread(target=self._receive, daemon=True).start()
        snippets = {"completion": {"completionItem": {"snippetSupport": True}}}
        capabilities = {"textDocument": snippets, "workspace": {"configuration": True}}
        self.ask("initialize", processId=None, rootUri=None, capabilities=capabilities)
        self._send(method="initialized", params={})
        self._send(method="workspace/didChangeConfiguration", params={"settings": {"yaml": self.settings}})

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.communicate()

    def problems(self, uri: str, text: str) -> dict[str, dict[str, Any]]:
        """Open a file; its diagnostics by the text that they mark."""
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send(method="textDocument/didOpen", params={"textDocument": document})
        while uri not in self.published:
            self._take()
        return {_marked(text, problem["range"]): problem for problem in self.published[uri]}

    def ask(self, method: str, **params: Any) -> Any:
        """The answer to a request."""
        self.asked += 1
        self._send(id=self.asked, method=method, params=params)
        while True:
            answer = self._take()
            if answer.get("id") == self.asked and "method" not in answer:
                return answer["result"]

    def _send(self, **message: Any) -> None:
        assert self.process.stdin
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def _take(self) -> dict[str, Any]:
        message = self.received.get(timeout=ANSWERS_WITHIN)
        if message.get("method") == "workspace/configuration":
            named = {"yaml": self.settings}
            settings = [named.get(item["section"], {}) for item in message["params"]["items"]]
            self._send(id=message["id"], result=settings)
        elif "method" in message and "id" in message:
            self._send(id=message["id"], result=None)
        elif message.get("method") == "textDocument/publishDiagnostics":
            self.published[message["params"]["uri"]] = message["params"]["diagnostics"]
        return message

    def _receive(self) -> None:
        assert self.process.stdout
        try:
            while header := self.process.stdout.readline():
                self.process.stdout.readline()
                size = int(header.split(b":")[1])
                self.received.put(json.loads(self.process.stdout.read(size)))
        except ValueError:  # closed while it was read
            return


def position(text: str, part: str) -> dict[str, int]:
    """Where a part of a text starts."""
    before = text[: text.index(part)]
    return {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}


def _marked(text: str, place: dict[str, Any]) -> str:
    line = text.splitlines()[place["start"]["line"]]
    return line[place["start"]["character"] : place["end"]["character"]]
