"""A real browser without a window, driven over a pipe with the DevTools protocol: what the page's tests look through."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)


def find_browser() -> str | None:
    """Path of a Chromium, if there is one; ``CHROMIUM`` in the environment names another."""
    named = os.environ.get("CHROMIUM")
    return named if named else next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one page open.

    Attributes:
        problems: uncaught exceptions and console errors of the page so far.
    """

    def __init__(self, path: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="page-")
        self.problems: list[str] = []
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # The browser reads from 3 and writes to 4. Numbers of our own must not be in the way of those.
        moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out, ours_in, ours_out)]
        for end in (theirs_in, theirs_out, ours_in, ours_out):
            os.close(end)
        read_end, write_end, self._in, self._out = moved
        self._pid = os.posix_spawn(
            path,
            [path, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            {**os.environ, "HOME": self._profile},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read_end, 3),
                (os.POSIX_SPAWN_DUP2, write_end, 4),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        os.close(read_end)
        os.close(write_end)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        try:
            target = self._page()
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _page(self) -> str:
        while True:
            for target in self._call("Target.getTargets")["targetInfos"]:
                if target["type"] == "page":
                    return str(target["targetId"])
            time.sleep(0.05)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and remove its profile."""
        for end in (self._in, self._out):
            os.close(end)
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], 60)[0]:
                raise RuntimeError("the browser says nothing any more")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError("the browser has gone")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        values: dict[str, Any] = json.loads(message)
        return values

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                self.problems.append(" ".join(str(value.get("value", "")) for value in params["args"]))

    def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1, phone: bool = False) -> None:
        """What screen the page believes it is on."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        self._call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def reload(self) -> None:
        """Load the page anew, and wait until it has loaded."""
        self.eval("window.stale = true, location.reload()")
        self.wait("!window.stale && document.readyState === 'complete'")

    def eval(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                value = self.eval(f"!!({expression})")
            except RuntimeError as error:  # the page is being replaced
                if "context" not in str(error):
                    raise
                value = False
            if value:
                return
            time.sleep(0.02)
        raise AssertionError(f"never came true: {expression}")

    def key(self, key: str, *, shift: bool = False, text: str | None = None) -> None:
        """Press a key, named as in JavaScript's `KeyboardEvent.key`."""
        typed = text if text is not None else key if len(key) == 1 else "\r" if key == "Enter" else ""
        params: dict[str, Any] = {"key": key, "modifiers": 8 if shift else 0}
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}
        if key in codes:
            params["windowsVirtualKeyCode"] = codes[key]
        self._call("Input.dispatchKeyEvent", type="keyDown", text=typed, **params)
        self._call("Input.dispatchKeyEvent", type="keyUp", **params)

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self._call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click in the middle of what a selector finds."""
        box = self.eval(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'nearest'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.press_at(*box)

    def press_at(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def download_to(self, folder: Path) -> None:
        """Where downloads go."""
        self._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def wait_for_file(self, path: Path, seconds: float = 60) -> None:
        """Wait until a download is there."""
        end = time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > end:
                raise AssertionError(f"{path.name} was never saved; there is {[item.name for item in path.parent.iterdir()]}")
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as a PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))
