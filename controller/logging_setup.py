"""Logging for operators: a constant message with fields, as text (`message key=value`) or one JSON object a line."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping

from controller.domain.text import printable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(level: str, style: str) -> None:
    """Log to stderr. `style` is `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("apscheduler", "urllib3", "docker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class SparseLog:
    """Logs the first record of each kind within a second, and with it how many others there were since the one before:
    thousands of refusals must not fill the log."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[
            str, tuple[float, int]
        ] = {}  # when the last one was logged, and how many came since

    def warning(self, kind: str, message: str, detail: str, fields: Mapping[str, object]) -> None:
        """`kind` is one of few."""
        now = self._clock()
        last, others = self._kinds.get(kind, (-math.inf, 0))
        if now - last < 1.0:
            self._kinds[kind] = last, others + 1
            return
        self._kinds[kind] = now, 0
        self._log.warning(message, detail, extra={**fields, "others": others} if others else fields)


class _TextFormatter(logging.Formatter):
    """A record begins a line and nothing else does: what a message or field quotes cannot look like another record."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_on_one_line(value)}" for key, value in _fields(record).items())
        head, newline, rest = printable(super().format(record)).replace("\n", "\n  ").partition("\n")
        return f"{head} {fields}{newline}{rest}" if fields else f"{head}{newline}{rest}"


def _on_one_line(value: object) -> str:
    return printable(str(value)).replace("\n", "\\n")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
