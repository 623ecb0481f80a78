"""A headless Chromium, driven through its DevTools protocol: just enough to use a page as a person would."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

__all__ = ["CHROMIUM", "Page", "browse"]

#: The command; None where there is no browser.
CHROMIUM = shutil.which("chromium")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    # Nothing but the loopback address has a name here.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Page:
    """One tab.

    Args:
        socket: Its DevTools connection.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        #: What the page wrote to its console, and errors nobody caught.
        self.complaints: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one DevTools command and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=20))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(event["params"]["exceptionDetails"])[:500])
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                self.complaints.append(json.dumps(event["params"]["entry"])[:500])

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Runtime.enable")
        self.call("Log.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """The text a person sees in an element; "" when there is none."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def until(self, expression: str, seconds: float = 15.0) -> Any:
        """Wait until an expression is true, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}\n{self.complaints}"
            time.sleep(0.05)
        return found

    def see(self, selector: str, words: str, seconds: float = 15.0) -> str:
        """Wait until an element shows these words, and return all it shows."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{element}?.innerText.includes({json.dumps(words)})", seconds)
        return self.text(selector)

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and type."""
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        """Press the Enter key."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        box = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView();"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def resize(self, width: int, height: int, *, mobile: bool = False, dark: bool = False) -> None:
        """Take another window size, and the light or dark colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Save what is visible as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browse(profile: Path, url: str) -> Iterator[Page]:
    """Start a browser with an empty profile, open a page in it, and end it afterwards."""
    assert CHROMIUM is not None
    browser = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_tab(profile, browser), max_size=None, compression=None) as socket:
            page = Page(socket)
            page.open(url)
            yield page
            page.call("Browser.close")
    finally:
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait(10)


def _tab(profile: Path, browser: subprocess.Popen[bytes], seconds: float = 30.0) -> str:
    """The DevTools address of the first tab."""
    announced = profile / "DevToolsActivePort"
    end = time.monotonic() + seconds
    while True:
        assert browser.poll() is None, f"chromium ended with {browser.returncode}"
        assert time.monotonic() < end, f"chromium opened no DevTools port within {seconds} s"
        lines = announced.read_text().split() if announced.exists() else []
        if len(lines) == 2:
            break
        time.sleep(0.05)
    with connect(f"ws://127.0.0.1:{lines[0]}{lines[1]}", max_size=None, compression=None) as socket:
        while True:
            targets = Page(socket).call("Target.getTargets")["targetInfos"]
            tabs = [target for target in targets if target["type"] == "page"]
            if tabs:
                return f"ws://127.0.0.1:{lines[0]}/devtools/page/{tabs[0]['targetId']}"
            assert time.monotonic() < end, "chromium has no tab"
            time.sleep(0.05)
