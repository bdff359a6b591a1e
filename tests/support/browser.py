"""A real browser without a window. Pages report what they have seen to a server of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import chromium
from tests.support.waiting import wait_for


def browser() -> str | None:
    """Return the program that starts Chromium, if there is one; see `tests/support/chromium.py`."""
    return chromium.__file__ if chromium.program() is not None else None


@contextmanager
def browsing(url: str, profile: Path, *options: str) -> Iterator[None]:
    """Shows the page while the block runs. Other requests than the page's own are not made."""
    program = browser()
    assert program is not None
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-popup-blocking", "--disable-background-networking", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--remote-debugging-port=0", *options, url),
    ]
    with (profile.parent / "browser.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


class DrivenBrowser:
    """One page of a browser, driven over a pipe as by a person: opened, filled in, submitted. It runs no script."""

    def __init__(self, profile: Path, *options: str) -> None:
        program = browser()
        assert program is not None
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        command = [
            *("bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash"),
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"),
            *(*options, "--remote-debugging-pipe", "about:blank"),
        ]
        with (profile.parent / "browser.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, pass_fds=(theirs_in, theirs_out)
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self._reading = os.fdopen(ours_in, "rb")
        self._writing = os.fdopen(ours_out, "wb", buffering=0)
        self._number = 0
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        (target,) = (each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._reading.close()
        self._writing.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the DevTools protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writing.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def url(self) -> str:
        """Where the page is; "" while another one replaces it."""
        try:
            history = self.call("Page.getNavigationHistory")
        except RuntimeError:
            return ""
        return str(history["entries"][history["currentIndex"]]["url"])

    def text(self) -> str:
        """The source of the page as it is now; "" while another one replaces it."""
        try:
            root = self.call("DOM.getDocument")["root"]["nodeId"]
            return str(self.call("DOM.getOuterHTML", nodeId=root)["outerHTML"])
        except RuntimeError:
            return ""

    def fill(self, selector: str, text: str) -> None:
        self._focus(selector)
        self.call("Input.insertText", text=text)

    def press_enter(self, selector: str) -> None:
        self._focus(selector)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **enter)
        self.call("Input.dispatchKeyEvent", type="keyUp", **enter)

    def _focus(self, selector: str) -> None:
        wait_for(lambda: self._has_focus(selector))

    def _has_focus(self, selector: str) -> bool:
        """Return False while another page, or a part of one, takes the place of this one."""
        try:
            root = self.call("DOM.getDocument")["root"]["nodeId"]
            node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
            self.call("DOM.focus", nodeId=node)
        except RuntimeError:
            return False
        return True

    def _message(self) -> bytes:
        parts = []
        while (byte := self._reading.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser has ended")
            parts.append(byte)
        return b"".join(parts)
