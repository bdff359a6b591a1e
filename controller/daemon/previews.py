"""Computes the previews that people ask for (`prichal plan`). A preview changes nothing: passes go on meanwhile."""

from __future__ import annotations

from typing import Final

from controller.daemon.asked_worker import AskedWorker
from controller.domain.apps.history import ManifestText
from controller.domain.apps.previews import AskedPreview, PlanPreview, preview_of
from controller.domain.errors import ControllerError, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.next_pass import preview
from controller.reconcile.secret_sources import hidden_of

_Found = tuple[PlanPreview, tuple[ManifestText, ...]]

_UNKNOWN: Final = Localizable("the platform folder has not been read yet")


class PreviewWorker(AskedWorker[AskedPreview, _Found]):
    task = "compute what the next pass would do"
    look = 0.1
    rest = 0.5

    def __init__(self, deps: ReconcilerDeps) -> None:
        self._deps = deps
        self._previews = deps.store.previews

    def begin(self) -> AskedPreview | None:
        return self._previews.begin()

    def finish(self, found: _Found) -> None:
        self._previews.finish(*found)

    def answer(self, asked: AskedPreview) -> _Found:
        if not self._deps.catalog.known:
            raise Transient(Reason.NOT_RUNNING, _UNKNOWN)
        try:
            found = preview(self._deps, asked.app)
        except ControllerError as error:
            message = scrub(error.message, hidden_of(self._deps, asked.app))
            return self.failure(asked, error.reason, message, isinstance(error, Transient))
        author, subject = found.revision.author, found.revision.subject
        told = preview_of(asked.id, found.plan, subject, author, found.warnings, found.hidden)
        return told, found.manifests

    def failure(self, asked: AskedPreview, reason: Reason, message: str, is_transient: bool) -> _Found:
        failed = PlanPreview(asked.id, asked.app, problem=reason, message=message, is_transient=is_transient)
        return failed, ()
