"""Tells the web process what `prichal doctor` says, so that administrators see it in a browser: the checks are made now
and then by the daemon, which alone may ask the engine and read what they are about, and written as a document beside
the state. `GET /-/health` shows it, with its age.

The check of accounts is left out: its text has the first administrator's link.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

from controller.atomic import replace_file
from controller.config import Settings
from controller.daemon.doctor import CHECKS, Check, doctor
from controller.domain.localizable import as_document
from controller.domain.units import rfc3339

EVERY: Final = 600.0  # seconds between two reports
MODE: Final = 0o640  # the group of the folder may read it
_PRIVATE: Final = frozenset(("people",))


def write_health(
    settings: Settings,
    examine: Callable[[Settings, frozenset[str]], list[Check]] = doctor,
    clock: Callable[[], float] = time.time,
) -> None:
    """Examine this machine, and replace the document."""
    checks = examine(settings, frozenset(CHECKS) - _PRIVATE)
    document = {"at": rfc3339(clock()), "checks": [_told(check) for check in checks]}
    replace_file(settings.health, json.dumps(document, ensure_ascii=False) + "\n", MODE)


def _told(check: Check) -> dict[str, object]:
    """Return a check, and what its texts were made of, so that the page can say them in another language."""
    told = {name: as_document(getattr(check, name)) for name in ("detail", "advice")}
    found = {"name": check.name, "ok": check.ok, "detail": check.detail, "advice": check.advice}
    return {**found, "told": {name: document for name, document in told.items() if document}}
