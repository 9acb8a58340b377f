"""A real Chromium without a window, spoken to over its DevTools protocol: what a page asks for, says and shows.

Own profile in a temporary folder, loopback only, ended with the test.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-port=0",
]
START_S, CALL_S = 30.0, 30.0


class Browser:
    """One page. Use it with `with`; raises AssertionError where Chromium is not installed or does not answer."""

    def __init__(self) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        assert program, "Chromium is needed for these tests: apt-get install chromium"
        self._folder = tempfile.TemporaryDirectory(prefix="cohortnet-browser-")
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._open = contextlib.ExitStack()
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Browser:
        try:
            self._socket = self._connect()
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(Exception):  # the browser may be gone already
            self._open.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self._folder.name, ignore_errors=True)

    def _connect(self) -> ClientConnection:
        deadline = time.monotonic() + START_S
        port_file = Path(self._folder.name) / "DevToolsActivePort"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"Chromium ended with {self._process.returncode}"
            try:
                port = int(port_file.read_text().splitlines()[0])
                with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                    pages = [item for item in json.load(answer) if item["type"] == "page"]
                url = pages[0]["webSocketDebuggerUrl"]
                return self._open.enter_context(connect(url, max_size=2**26, open_timeout=10, proxy=None))
            except (OSError, ValueError, IndexError):
                time.sleep(0.05)
        raise AssertionError(f"Chromium was not ready within {START_S:g} s")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; events that come meanwhile are kept."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        deadline = time.monotonic() + CALL_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.01)))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        method, values = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"].get("exception", values["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(values["args"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])

    def open(self, path: Path) -> None:
        """Load a file; waits until it is drawn."""
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + CALL_S
        while self.run("document.readyState + (document.querySelector('footer') ? '' : '?')") != "complete":
            assert time.monotonic() < deadline, f"{path} was not loaded within {CALL_S:g} s"
            time.sleep(0.05)
        time.sleep(0.2)  # whatever a script would ask for late

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def look_like(self, width: int, height: int, *, scheme: str = "light", media: str = "") -> None:
        """Size of the window, light or dark, screen or print."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """The page as PNG: what the window shows, or all of it."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])
