"""The platform folder, reconciled like an app: what it declares becomes the directory, the web process learns what
it must check, and every app that came, changed or went is asked for."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from controller.domain.conditions import Condition, ConditionType
from controller.domain.errors import ControllerError, ManifestInvalid, Stalled, Transient
from controller.domain.names import PLATFORM, AppName
from controller.domain.spec import PlatformSpec, RepositorySpec
from controller.domain.status import RepositoryRecord, Request
from controller.reconcile.house import House, Outcome
from controller.reconcile.journal import Journal

log = logging.getLogger(__name__)

_RETRY = 30.0


@dataclass
class Platform:
    """`read` gives the folder's content after validation: PlatformSpec, commit or "" for a plain folder."""

    house: House
    read: Callable[[], tuple[PlatformSpec, str]]

    def __post_init__(self) -> None:
        self._marks: dict[AppName, str] | None = (
            None  # what each app's system components looked like last time
        )

    def reconcile(self, request: Request) -> Outcome:
        secrets = self.house.directory.secret_values(PLATFORM)
        journal = Journal(self.house.store, self.house.clock, PLATFORM, secrets)
        try:
            outcome = self._run(journal)
        except ControllerError as error:
            outcome = self._failed(journal, error)
        except Exception as error:  # a bug must not end the loop
            log.exception("bug while reconciling the platform folder")
            outcome = self._failed(journal, Transient("InternalError", f"{type(error).__name__}: {error}"))
        journal.save()
        return outcome

    def _failed(self, journal: Journal, error: ControllerError) -> Outcome:
        journal.failed(_condition_of(error), error)
        message = journal.status.conditions[0].message
        return Outcome("Failed", message, retry_after=None if isinstance(error, Stalled) else _RETRY)

    def _run(self, journal: Journal) -> Outcome:
        spec, revision = self.read()
        self._guard_empty(spec, journal)
        self.house.directory.replace(spec)
        before = {record.name for record in self.house.store.repositories.all()}
        self.house.store.repositories.replace(self._record(r, spec) for r in spec.repositories)
        reason = "platform" if self._marks is not None else "start"
        for app in sorted(self._changed(spec)):
            self.house.store.requests.enqueue(app, reason)
        self.house.sources.forget(sorted(before - {r.name for r in spec.repositories}))
        count = len(spec.apps)
        message = f"{count} app{'s' if count != 1 else ''} connected"
        conditions = [Condition(ConditionType.READY, True, "Ready", message, revision=revision)]
        if spec.warnings:
            text = "\n".join(spec.warnings)
            conditions.append(Condition(ConditionType.WARNING, True, "Warnings", text, revision=revision))
        journal.converged(revision, tuple(conditions))
        return Outcome("Ready", message, revision)

    def _guard_empty(self, spec: PlatformSpec, journal: Journal) -> None:
        """An empty folder is more often a lost mount than a wish."""
        if spec.apps or spec.repositories:
            return
        if journal.before.approved_revision:  # good for one time
            self.house.store.apps.approve(PLATFORM, "")
            return
        connected = [status.app for status in self.house.store.apps.all() if status.app != PLATFORM]
        if connected:
            names = ", ".join(sorted(connected))
            message = f"the platform folder is empty, {names} would all go; confirm with: prichal approve {PLATFORM}"
            raise Stalled("PrunePending", message)

    def _changed(self, spec: PlatformSpec) -> set[AppName]:
        marks = {app.name: self._mark(app.name, spec) for app in spec.apps}
        known = {status.app for status in self.house.store.apps.all()} | self.house.engine.apps()
        gone = {app for app in known if app not in marks and app != PLATFORM}
        before = self._marks or {}
        changed = {app for app, mark in marks.items() if before.get(app) != mark}
        self._marks = marks
        return changed | gone

    def _mark(self, app: AppName, spec: PlatformSpec) -> str:
        """Digest of everything on the platform's side that an app depends on, secrets included."""
        declared = spec.app(app)
        repository = spec.repository(declared.repository) if declared else None
        values = [(s.name, k, v.reveal()) for s in spec.secrets if s.app in (None, app) for k, v in s.values]
        return hashlib.sha256(repr((declared, repository, values)).encode()).hexdigest()

    def _record(self, repository: RepositorySpec, spec: PlatformSpec) -> RepositoryRecord:
        secret = self.house.directory.repository_secret(repository, repository.hook_secret)
        values = [value for _, value in secret.values] if secret else []
        return RepositoryRecord(
            name=repository.name,
            apps=tuple(app.name for app in spec.apps if app.repository == repository.name),
            ref=f"{repository.ref.kind}:{repository.ref.value}",
            interval=repository.interval,
            hook_provider=repository.hook_provider,
            hook_secret=values[0].reveal() if values else "",
        )


def _condition_of(error: ControllerError) -> ConditionType:
    if isinstance(error, ManifestInvalid):
        return ConditionType.MANIFEST_INVALID
    if error.reason == ConditionType.PRUNE_PENDING:
        return ConditionType.PRUNE_PENDING
    return ConditionType.STALLED if isinstance(error, Stalled) else ConditionType.APPLY_FAILED
