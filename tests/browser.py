"""A headless Chromium, driven through the pipe of its DevTools protocol: nothing else needs to be installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)


class Page:
    """One page of the browser, with everything it said and asked for since it was opened."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.write, self.read, self.number = ours, theirs, 0
        self.pending, self.session = b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What a method of the protocol gives."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.pending:
            chunk = os.read(self.read, 1 << 16)
            assert chunk, "the browser has gone"
            self.pending += chunk
        text, _, self.pending = self.pending.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def open(
        self, file: Path, *, width: int, scheme: str, scripts: bool = True, media: str = "screen"
    ) -> None:
        """Show a file on a screen (or in print) of that width, in the light or dark color scheme."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=media, features=[feature])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def said(self) -> list[str]:
        """The messages of the console, of the browser's log, and of scripts that failed."""
        methods = ("Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in methods]

    def asked_for(self) -> list[str]:
        """The addresses of all requests."""
        requests = (e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [str(request["request"]["url"]) for request in requests]

    def screenshot(self, file: Path) -> None:
        """Save a picture of the whole page."""
        import base64

        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A page of a browser of its own, whose profile lies in a folder."""
    assert CHROMIUM
    (read_ours, theirs), (read_theirs, ours) = os.pipe(), os.pipe()
    flags = [*FLAGS, f"--user-data-dir={profile}"]
    script = f'exec "$@" 3<&{read_theirs} 4>&{theirs}'
    with subprocess.Popen(
        ["bash", "-c", script, "-", CHROMIUM, *flags],
        pass_fds=(read_theirs, theirs),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(read_theirs)
        os.close(theirs)
        try:
            yield Page(ours, read_ours)
        finally:
            process.kill()
            os.close(ours)
            os.close(read_ours)
