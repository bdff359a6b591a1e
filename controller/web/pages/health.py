"""The platform as a whole, for administrators: whether its parts work at this moment, what fills up, and what the
daemon found when it examined the machine last (`prichal doctor` says the same on the host, at once)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, current_app
from flask.typing import ResponseReturnValue

from controller import __version__
from controller.domain.localizable import restored, shortened
from controller.domain.text import printable
from controller.domain.units import rfc3339
from controller.web.api.platform.status import checks_of
from controller.web.context import context, principal
from controller.web.gpus import gpu_document, read_gpus, written_report
from controller.web.pages.names import PROBLEMS_FOUND
from controller.web.pages.rendering import page, wants_page

health_pages = Blueprint("health_pages", __name__)

MOST: Final = 2**18  # bytes of the daemon's document
LONGEST: Final = 2000  # characters of a text


@dataclass(frozen=True)
class HealthCheck:
    """What was examined; `advice` is empty if there is no problem."""

    name: str
    is_well: bool
    detail: str
    advice: str = ""

    def document(self) -> dict[str, object]:
        return {"name": self.name, "ok": self.is_well, "detail": self.detail, "advice": self.advice}


@dataclass(frozen=True)
class Examination:
    """`at` is empty if the daemon has not written one yet."""

    at: str = ""
    checks: tuple[HealthCheck, ...] = ()


@health_pages.get("/-/health")
def health() -> ResponseReturnValue:
    store, settings = context(current_app)
    now, found = time.time(), examination(settings.health)
    present = [HealthCheck(name, not fault, fault) for name, fault in checks_of(store, now).items()]
    nearly = [use for use in store.usage() if use.is_nearly_full]
    beat, restarts, gpus = store.last_heartbeat(), store.restarts(), read_gpus(store, settings, now)
    if wants_page():
        return page(
            "health.html",
            present=present,
            found=found,
            nearly=nearly,
            beat=beat,
            restarts=restarts,
            problems=PROBLEMS_FOUND,
            gpus=gpus,
            report=written_report(settings.gpu_report),
        )
    return {
        "version": __version__,
        "heartbeat": rfc3339(beat),
        "restartCounts": dict(restarts),
        "checks": [check.document() for check in present],
        "examined": {"at": found.at or None, "checks": [check.document() for check in found.checks]},
        "gpus": [gpu_document(gpu, principal().sees) for gpu in gpus],
        "nearlyFull": [
            {"app": use.app, "resource": use.resource, "used": use.used, "bound": use.bound} for use in nearly
        ],
    }


def examination(path: Path) -> Examination:
    """Return what the daemon has written; an empty one if there is none, or not one that can be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST + 1)
        if len(content) > MOST:
            return Examination()
        document = json.loads(content)
        return Examination(str(document["at"]), tuple(map(_check, document["checks"])))
    except (OSError, ValueError, KeyError, TypeError):
        return Examination()


def _check(told: Any) -> HealthCheck:
    made_of = told.get("told") if isinstance(told.get("told"), dict) else {}
    detail, advice = (
        shortened(restored(printable(str(told[name])), made_of.get(name)), LONGEST)
        for name in ("detail", "advice")
    )
    return HealthCheck(str(told["name"]), told["ok"] is True, detail, advice)
