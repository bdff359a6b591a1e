"""Computes the previews that people ask for (`prichal plan`): a thread of the daemon, which may use the engine
and the repositories, unlike the web process and other users of this host.

One is computed at a time, with a pause after it, so that those who may only look at an app cannot keep the engine and
its Git server busy. A preview changes nothing: passes go on meanwhile.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from controller.domain.apps.history import ManifestText
from controller.domain.apps.previews import AskedPreview, PlanPreview, preview_of
from controller.domain.errors import ControllerError, Transient
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.guards import GuardedStep
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.reconciliation import hidden_of, preview

log = logging.getLogger(__name__)

LOOK: Final = 0.1  # seconds between two looks for what is asked
REST: Final = 0.5  # seconds after a preview

_UNKNOWN: Final = "the platform folder has not been read yet"
_BUG: Final = "internal error; see the traceback in the daemon's log"


class PreviewWorker:
    def __init__(self, deps: ReconcilerDeps) -> None:
        self._deps = deps
        self._previews = deps.store.previews

    def run(self, stop: threading.Event) -> None:
        step = GuardedStep("cannot compute what the next pass would do", self._serve)
        while not stop.is_set():
            step(stop)
            stop.wait(LOOK)

    def work(self) -> bool:
        """Compute the preview that has waited longest; return False if there is none."""
        asked = self._previews.begin()
        if asked is None:
            return False
        self._previews.finish(*self._preview(asked))
        return True

    def _serve(self, stop: threading.Event) -> None:
        while self.work() and not stop.wait(REST):
            pass

    def _preview(self, asked: AskedPreview) -> tuple[PlanPreview, tuple[ManifestText, ...]]:
        try:
            if not self._deps.catalog.known:
                raise Transient(Reason.NOT_RUNNING, _UNKNOWN)
            found = preview(self._deps, asked.app)
        except ControllerError as error:
            message = scrub(error.message, hidden_of(self._deps, asked.app))
            return self._failed(asked, error.reason, message, isinstance(error, Transient)), ()
        except Exception:
            log.exception("bug in a preview", extra={"app": asked.app})
            return self._failed(asked, Reason.INTERNAL_ERROR, _BUG, True), ()
        author, subject = found.revision.author, found.revision.subject
        told = preview_of(asked.id, found.plan, subject, author, found.warnings, found.hidden)
        return told, found.manifests

    def _failed(self, asked: AskedPreview, reason: Reason, message: str, is_transient: bool) -> PlanPreview:
        return PlanPreview(asked.id, asked.app, problem=reason, message=message, is_transient=is_transient)
