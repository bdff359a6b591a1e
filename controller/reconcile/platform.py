"""The platform folder, reconciled like an app: its content becomes the catalog, the web process gets what it
must check, and a pass is requested for every app that was added, changed or removed. Previews of branches are apps like
the others; they are derived each time the folder is put in force, and whenever branches, time or people have changed
which there are to be (`refresh`)."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.orders import shares_of
from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.apps.spec import PlatformSpec, RepositorySpec
from controller.domain.apps.status import PreviewWatch, RepositoryRecord
from controller.domain.errors import ControllerError, ManifestInvalid, Stalled, Transient
from controller.domain.forges import path_of
from controller.domain.git_http import hosted_name
from controller.domain.localizable import Localizable, joined
from controller.domain.names import PLATFORM, AppName, previews_key
from controller.domain.reasons import Reason
from controller.reconcile.branch_previews import derive_previews, wanted_now
from controller.reconcile.deps import PassOutcome, ReconcilerDeps
from controller.reconcile.status_writer import StatusWriter

log = logging.getLogger(__name__)

_RETRY = 30.0


@dataclass
class PlatformReconciler:
    """`read` returns the validated content of the folder: PlatformSpec, and the commit or "" for a plain
    folder. `keep` is called when that came into force; `last` returns what was in force last, also before a
    restart.
    """

    deps: ReconcilerDeps
    read: Callable[[], tuple[PlatformSpec, str]]
    keep: Callable[[], object] = lambda: None
    last: Callable[[], PlatformSpec | None] = lambda: None

    def __post_init__(self) -> None:
        self._marks: dict[AppName, str] | None = (
            None  # digests of each app's system components at the last pass
        )
        self._declared: PlatformSpec | None = None  # what is in force, without previews
        self._lock = threading.RLock()  # held while something is put in force

    def reconcile(self, request: ReconcileRequest) -> PassOutcome:
        secrets = self.deps.catalog.secret_values(PLATFORM)
        status_writer = StatusWriter(self.deps.store, self.deps.clock, PLATFORM, secrets)
        try:
            outcome = self._run(status_writer)
        except ControllerError as error:
            outcome = self._failed(status_writer, error)
        except Exception as error:  # a bug must not end the loop
            log.exception("bug while reconciling the platform folder")
            outcome = self._failed(
                status_writer, Transient(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
            )
        status_writer.save()
        return outcome

    def _failed(self, status_writer: StatusWriter, error: ControllerError) -> PassOutcome:
        if not self.deps.catalog.known:
            self._go_on_with_the_last()
        status_writer.record_failure(_condition_of(error), error)
        message = status_writer.status.conditions[0].message
        return PassOutcome(
            Outcome.FAILED, message, retry_after=None if isinstance(error, Stalled) else _RETRY
        )

    def _go_on_with_the_last(self) -> None:
        """After a restart with a broken folder, continue with what it declared before."""
        spec = self.last()
        if spec is None:
            return
        log.warning("the platform folder is broken: the apps that were connected before stay connected")
        self._put_in_force(spec)

    def _run(self, status_writer: StatusWriter) -> PassOutcome:
        spec, revision = self.read()
        self._guard_empty(spec, status_writer)
        status_writer.record_encrypted(spec.encrypted)
        before = self._put_in_force(spec)
        self.keep()
        self.deps.sources.forget(sorted(before - {r.name for r in spec.repositories}))
        count = len(spec.apps)
        message = (
            Localizable("1 app connected")
            if count == 1
            else Localizable("{count} apps connected", count=count)
        )
        conditions = [Condition(ConditionType.READY, True, Reason.READY, message, revision=revision)]
        if spec.warnings:
            text = joined(spec.warnings, "\n")
            conditions.append(
                Condition(ConditionType.WARNING, True, Reason.WARNINGS, text, revision=revision)
            )
        status_writer.record_success(revision, tuple(conditions))
        return PassOutcome(Outcome.READY, message, revision)

    def refresh(self) -> None:
        """Put in force which previews there are now."""
        with self._lock:
            if self._declared is not None:
                self._put_in_force(self._declared)

    def is_due(self) -> bool:
        """Return whether time or a person has changed which previews there are to be, or a death has left them half
        recorded."""
        declared = self._declared
        if declared is None:
            return False
        wanted = {each.app: each for each in wanted_now(self.deps, declared).wanted}
        now = {app.name for app in self.deps.catalog.spec.apps if app.preview}
        stored = {each.app: replace(each, begun=0.0) for each in self.deps.store.branches.previews()}
        return wanted.keys() != now or any(stored.get(app) != each for app, each in wanted.items())

    def _put_in_force(self, declared: PlatformSpec) -> set[str]:
        """Replace the catalog, and return the names of repositories that were known before."""
        with self._lock:
            self._declared = declared
            return self._apply(derive_previews(self.deps, declared))

    def _apply(self, spec: PlatformSpec) -> set[str]:
        self.deps.catalog.replace(spec)
        before = {record.name for record in self.deps.store.repositories.all()}
        previews = {app.repository for app in spec.apps if app.preview}
        declared = (each for each in spec.repositories if each.name not in previews)
        self.deps.store.repositories.replace(self._record(each, spec) for each in declared)
        self.deps.store.orders.replace_shares(shares_of(spec))
        for app in spec.apps:
            if app.preview is None:
                self.deps.store.age_keys.ensure(app.name)
        self.deps.store.notifications.declare(PLATFORM, spec.notifications)
        trigger = Trigger.PLATFORM if self._marks is not None else Trigger.START
        marks = {app.name: self._mark(app.name, spec) for app in spec.apps}
        with_previews = {app.name for app in spec.apps if app.previews}
        for changed in sorted(self._changed(marks)):
            self.deps.store.requests.enqueue(changed, trigger)
            if changed in with_previews:
                self.deps.store.requests.enqueue(previews_key(changed), trigger)
        self._marks = marks  # set last, so that the next try requests passes that this one could not
        return before

    def _guard_empty(self, spec: PlatformSpec, status_writer: StatusWriter) -> None:
        """Refuse an empty folder, which is more often a lost mount than intended."""
        if spec.apps or spec.repositories:
            return
        if status_writer.before.approved_revision:  # an approval is used once
            status_writer.use_approval()
            return
        connected = {status.app for status in self.deps.store.apps.all() if status.app != PLATFORM}
        before = self.deps.catalog.spec if self.deps.catalog.known else self.last()
        connected |= {app.name for app in before.apps} if before else set()
        if connected:
            names = ", ".join(sorted(connected))
            message = Localizable(
                "the platform folder is empty: all apps ({names}) would be removed; if that is intended: "
                "prichal approve {platform}",
                names=names,
                platform=PLATFORM,
            )
            raise Stalled(Reason.PRUNE_PENDING, message)

    def _changed(self, marks: Mapping[AppName, str]) -> set[AppName]:
        known = {status.app for status in self.deps.store.apps.all()} | self.deps.engine.apps()
        gone = {app for app in known if app not in marks and app != PLATFORM}
        before = self._marks or {}
        changed = {app for app, mark in marks.items() if before.get(app) != mark}
        return changed | gone

    def _mark(self, app: AppName, spec: PlatformSpec) -> str:
        """Return a digest of everything on the platform's side that an app depends on, secrets included."""
        declared = spec.app(app)
        repository = spec.repository(declared.repository) if declared else None
        owners = (None, app, declared.preview.app if declared and declared.preview else None)
        values = [(s.name, k, v.reveal()) for s in spec.secrets if s.app in owners for k, v in s.values]
        return hashlib.sha256(repr((declared, repository, values)).encode()).hexdigest()

    def _record(self, repository: RepositorySpec, spec: PlatformSpec) -> RepositoryRecord:
        secret = self.deps.catalog.repository_secret(repository, repository.hook_secret)
        values = [value for _, value in secret.values] if secret else []
        return RepositoryRecord(
            name=repository.name,
            apps=spec.apps_of(repository.name),
            ref=f"{repository.ref.kind}:{repository.ref.value}",
            interval=repository.interval,
            hook_provider=repository.hook_provider,
            hook_secret=values[0].reveal() if values else "",
            hosted=hosted_name(repository.url, self.deps.settings.repositories),
            path=path_of(repository.url),
            previews=tuple(
                PreviewWatch(app.name, app.previews.branches, app.previews.pull_requests)
                for app in spec.apps
                if app.previews and app.repository == repository.name
            ),
        )


def _condition_of(error: ControllerError) -> ConditionType:
    if isinstance(error, ManifestInvalid):
        return ConditionType.MANIFEST_INVALID
    if error.reason == Reason.PRUNE_PENDING:
        return ConditionType.PRUNE_PENDING
    return ConditionType.STALLED if isinstance(error, Stalled) else ConditionType.APPLY_FAILED
