"""`python -m controller.adapters.apprise_process`: send one message by Apprise, in a process of its own.

A developer chooses the URL, and Apprise has code for some 180 services. So what the process may do is bounded by an
audit hook, which no code can remove again: it connects to public addresses alone (unless all are allowed), over the
internet protocols alone, starts no program, writes no file, and reads none but those of Python and of the system.

Input: one JSON object on the standard input. Output: one JSON object `{"sent": …, "why": …}`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import sysconfig
from typing import Any, Final

from controller.domain.runs.webhooks import is_public

_READABLE: Final = (
    *{sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()},
    *("/usr", "/lib", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/mime.types", "/etc/localtime"),
    *("/dev/null", "/dev/urandom"),
)
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER: Final = (
    *("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.system"),
    *("pty.", "syslog.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink"),
    *("os.chmod", "os.chown", "os.kill", "shutil."),
)
_CODE: Final = re.compile(r"error=([1-5][0-9]{2})\b")
_REFUSED: Final = "prichal refuses it"


class Refusals:
    """What the process was not allowed to do, in words."""

    def __init__(self, private: bool) -> None:
        self._private = private
        self.found: list[str] = []

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            self._connect(arguments[0], arguments[1])
        elif event == "open":
            self._open(arguments[0], arguments[2])
        elif event.startswith(_NEVER):
            self._refuse("the service wants to do something on this host")

    def _connect(self, sock: socket.socket, address: Any) -> None:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            self._refuse("the service is on this host")
        if self._private or address is None:
            return
        try:
            public = is_public(str(address[0]).partition("%")[0])
        except (ValueError, TypeError, IndexError):
            public = False
        if not public:
            why = "the address is not public; it may be used only if notifications.privateReceivers is set"
            self._refuse(why)

    def _open(self, path: Any, flags: Any) -> None:
        if isinstance(path, int):
            return
        real = os.path.realpath(os.fsdecode(path))
        readable = any(real == each or real.startswith(f"{each}/") for each in _READABLE)
        if not readable or (isinstance(flags, int) and flags & _WRITES and not real.startswith("/dev/")):
            self._refuse("the service wants to use a file of this host")

    def _refuse(self, why: str) -> None:
        self.found.append(why)
        raise PermissionError(f"{_REFUSED}: {why}")


class _Codes(logging.Handler):
    """Remembers the status that a service has answered. Apprise's messages themselves may quote anything."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.codes += _CODE.findall(record.getMessage())


def send(asked: dict[str, Any], refusals: Refusals) -> tuple[bool, str]:
    """Return whether the message was sent, and if not, why."""
    import apprise

    codes = _Codes()
    logging.getLogger("apprise").addHandler(codes)
    logging.getLogger("apprise").propagate = False
    asset = apprise.AppriseAsset(async_mode=False, app_id="prichal", app_desc="prichal", plugin_paths=[])
    service = apprise.Apprise(asset=asset)
    service.instantiate("json://localhost", asset=asset)  # imports all plugins, before the hook is there
    sys.addaudithook(refusals.audit)
    if not service.add(asked["url"]):
        return False, refusals.found[0] if refusals.found else "it is not a URL that Apprise knows"
    if service.notify(
        body=asked["text"], title=asked["title"], notify_type=asked["type"], body_format="text"
    ):
        return True, ""
    if refusals.found:
        return False, refusals.found[0]
    return False, f"the service answers {codes.codes[-1]}" if codes.codes else "the service did not take it"


def main() -> int:
    asked = json.load(sys.stdin)
    refusals = Refusals(asked["private"])
    try:
        sent, why = send(asked, refusals)
    except ImportError:
        sent, why = False, "Apprise is not installed: pip install 'prichal[notify]'"
    except Exception as error:  # noqa: BLE001 - of 180 plugins; its text may contain the URL
        sent, why = False, refusals.found[0] if refusals.found else f"Apprise failed: {type(error).__name__}"
    sys.stdout.write(json.dumps({"sent": sent, "why": why, "refused": bool(refusals.found)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
