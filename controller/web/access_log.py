"""The access log: one line for each request that a gateway worker has answered, in the combined log format or as JSON.

Promises: a line is one line, whatever callers have sent; nothing of a query is written, nor of that of a referrer, as
queries carry signatures and tokens; a slow disk or reader delays no call, and costs bounded memory and then lines.
Workers write into one file, each line as a whole; a file that was moved away is made again."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from controller.guards import report

log = logging.getLogger(__name__)

WAITING: Final = 10_000  # lines that may wait to be written,
MOST_HELD: Final = 8 * 2**20  # and about so many bytes of memory
EACH: Final = 1200  # of them for a line, beside what the caller has sent
PERIOD: Final = 0.5  # seconds between two writes
CLOSING: Final = 2.0  # seconds that the last lines get when a worker stops
#: Bytes that are written at once: so many, and the kernel keeps them together in a pipe, too. A line is shorter.
PIECE: Final = 4096
_PATH, _REFERRER, _AGENT, _NAME = 1600, 700, 500, 200  # characters of a field, as written
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """`at` is when the request began, in Unix seconds; `user` is the caller as an API has authenticated them, "" for
    none; `path` and `referrer` may have a query, which is left out."""

    at: float
    seconds: float
    address: str
    user: str
    method: str
    path: str
    protocol: str
    status: int
    size: int
    referrer: str
    agent: str
    request: str
    api: str
    trace: str = ""

    @property
    def memory(self) -> int:
        """Return about how many bytes of memory it takes."""
        texts = (self.user, self.path, self.referrer, self.agent, self.request)
        return EACH + sum(len(text) if text.isascii() else 4 * len(text) for text in texts)


def combined(entry: AccessEntry) -> str:
    """Return a line of the combined log format, as Apache and nginx write it."""
    at = time.gmtime(entry.at)
    when = f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000"
    asked = (
        f"{_escaped(entry.method, 32)} {_escaped(_plain(entry.path), _PATH)} {_escaped(entry.protocol, 16)}"
    )
    user = _escaped(entry.user, _NAME).replace(" ", "\\x20") or "-"
    return (
        f"{_escaped(entry.address, 64) or '-'} - {user} [{when}] "
        f'"{asked}" {entry.status} {entry.size or "-"} '
        f'"{_escaped(_plain(entry.referrer), _REFERRER) or "-"}" "{_escaped(entry.agent, _AGENT) or "-"}"'
    )


def as_json(entry: AccessEntry) -> str:
    """Return a JSON object in one line of ASCII."""
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document = {
        "time": at,
        "address": _bounded(entry.address, 64),
        "user": _bounded(entry.user, _NAME),
        "method": _bounded(entry.method, 32),
        "path": _bounded(_plain(entry.path), _PATH),
        "protocol": _bounded(entry.protocol, 16),
        "status": entry.status,
        "bytes": entry.size,
        "seconds": round(entry.seconds, 6),
        "referrer": _bounded(_plain(entry.referrer), _REFERRER),
        "userAgent": _bounded(entry.agent, _AGENT),
        "requestId": _bounded(entry.request, 128),
        "api": _bounded(entry.api, 128),
    }
    if entry.trace:
        document["traceId"] = entry.trace
    return json.dumps(document, separators=(",", ":"))


#: By the value of the option `log.access`.
FORMATS: Final[dict[str, Callable[[AccessEntry], str]]] = {"combined": combined, "json": as_json}


def _plain(address: str) -> str:
    """Return a URL or path without its query and fragment, and without a password in front of the host."""
    return re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", address, maxsplit=1)[0], count=1)


def _escaped(text: str, most: int) -> str:
    """Escape like Apache: quotes, backslashes, and as \\xhh all bytes that are not printable ASCII."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text[:most]
    pieces: list[str] = []
    left = most
    for byte in _bytes(text[:most]):
        printable = 0x20 <= byte < 0x7F
        piece = f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if printable else f"\\x{byte:02x}"
        left -= len(piece)
        if left < 0:
            break
        pieces.append(piece)
    return "".join(pieces)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a name from elsewhere, with half a character
        return text.encode("utf-8", "surrogatepass")


def _bounded(text: str, most: int) -> str:
    """Return a text that takes at most `most` bytes of JSON."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text[:most]
    return text[: most // 12]  # bytes of a character that takes two escapes


class AccessLog:
    """Writes lines by a thread of its own. Without a path it writes to the standard output."""

    def __init__(self, style: str, path: Path | None) -> None:
        self._format = FORMATS[style]
        self._path = path
        self._entries: deque[AccessEntry] = deque()
        self._added = self._taken = 0  # bytes of memory; each is changed by one thread
        self._dropped = 0
        self._unwritten = b""  # lines that a full disk had no room for
        self._is_cut = False  # the file ends in the middle of a line, because the disk was full
        self._cut = 0  # lines of which only the beginning was written
        self._told = self._told_cut = 0  # of the dropped and cut ones, in our own log
        self._failing = False
        self._file = sys.stdout.fileno() if path is None else -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def add(self, entry: AccessEntry) -> None:
        """Never blocks. Called on the event loop."""
        memory = entry.memory
        if len(self._entries) >= WAITING or self._added - self._taken + memory > MOST_HELD:
            self._dropped += 1
        else:
            self._added += memory
            self._entries.append(entry)

    @property
    def dropped(self) -> int:
        """Return how many lines were dropped or cut since the start."""
        return self._dropped + self._cut

    def close(self) -> None:
        self._stop.set()
        self._thread.join(CLOSING)

    def _run(self) -> None:
        while True:
            stopping = self._stop.wait(PERIOD)
            try:
                self._write_all()
                self._failing = False
            except Exception as error:  # noqa: BLE001 - reported once; the next lines are tried again
                if not self._failing:
                    report("the access log cannot be written", error)
                self._failing = True
            if stopping:
                return

    def _write_all(self) -> None:
        self._tell_losses()
        self._open()
        self._write()
        while self._entries:
            self._unwritten = self._piece()
            self._write()

    def _tell_losses(self) -> None:
        """Say how many lines are missing since this was last said, and why."""
        dropped, cut = self._dropped, self._cut
        if dropped > self._told:
            why = "cannot be written" if self._failing else "is too slow"
            log.warning(
                "lines of the access log were dropped, since it %s",
                why,
                extra={"lines": dropped - self._told},
            )
        if cut > self._told_cut:
            log.warning(
                "lines of the access log lost their end, since the disk was full",
                extra={"lines": cut - self._told_cut},
            )
        self._told, self._told_cut = dropped, cut

    def _piece(self) -> bytes:
        """Take lines that are written at once."""
        lines: list[bytes] = []
        size = 0
        while self._entries:
            line = self._format(self._entries[0]).encode("ascii", "replace") + b"\n"
            if lines and size + len(line) > PIECE:
                break
            self._taken += self._entries.popleft().memory
            lines.append(line)
            size += len(line)
        return b"".join(lines)

    def _write(self) -> None:
        """Write what was taken. What a full disk has no room for is written once it has."""
        while self._unwritten:
            piece = b"\n" + self._unwritten if self._is_cut else self._unwritten
            written = os.write(self._file, piece)
            left = piece[written:]
            self._is_cut = not piece[:written].endswith(b"\n")
            if self._is_cut:  # others may write now, so that its end would be in no line
                left = left.partition(b"\n")[2]
                self._cut += 1
            self._unwritten = left

    def _open(self) -> None:
        """Open the file, again if it was moved away meanwhile, as logrotate does it."""
        if self._path is None or (self._file >= 0 and self._is_there()):
            return
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o640)
        self._is_cut = False

    def _is_there(self) -> bool:
        assert self._path is not None
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False
