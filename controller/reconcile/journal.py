"""The journal of one pass: the status as it grows, the events on transitions, one save at the end.

Events are told once, when something turns; a state that merely goes on is in the conditions alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.domain.conditions import Condition, Conditions, ConditionType, find, is_ready, merge
from controller.domain.errors import ControllerError
from controller.domain.names import AppName, ComponentName
from controller.domain.plan import Plan, StartWorkload
from controller.domain.secret import Secret, scrub
from controller.domain.spec import Kind
from controller.domain.status import AppStatus, ComponentStatus, Event, EventType
from controller.ports import Clock, Store
from controller.reconcile.executor import Failure


class Journal:
    """`status` is what will be saved, `before` what was there; `beside` are conditions that hold beside the
    verdict (fetch failed, manifests invalid). A `silent` one tells no events: for looking without acting."""

    def __init__(
        self, store: Store, clock: Clock, app: AppName, secrets: tuple[Secret, ...], silent: bool = False
    ) -> None:
        self._store = store
        self._clock = clock
        self._app = app
        self.secrets = secrets
        self._silent = silent
        self.before: AppStatus = store.apps.status(app)
        self.status: AppStatus = self.before
        self.beside: list[Condition] = []

    def emit(
        self, reason: str, message: str, component: ComponentName | None = None, warn: bool = False
    ) -> None:
        """Told at once, so that whoever waits for the pass sees its progress."""
        if self._silent:
            return
        kind = EventType.WARNING if warn else EventType.NORMAL
        revision = self.status.attempted_revision
        text = scrub(message, self.secrets)
        self._store.events.add([Event(self._app, kind, reason, text, component, revision, self._clock.now())])

    def hide(self, secrets: Iterable[Secret]) -> None:
        """More that must not appear in any text of this pass."""
        self.secrets = (*self.secrets, *secrets)

    def component(self, name: ComponentName) -> ComponentStatus:
        return self.status.component(name) or ComponentStatus(name, Kind.ML_COMPONENT)

    # --- on the way --------------------------------------------------------------------------------------------

    def attempted(self, commit: str, subject: str) -> None:
        self.status = replace(self.status, attempted_revision=commit)
        if commit != self.before.attempted_revision:
            self.emit("NewRevision", f"{commit[:12]} {subject}".rstrip())

    def forgive(self) -> None:
        """A person asked: what failed or crash-looped is tried once more."""
        components = tuple(
            replace(c, failed_fingerprint="", failure="", failure_reason="", restarts=())
            for c in self.status.components
        )
        self.status = replace(self.status, components=components)

    def note(self, kind: ConditionType, error: ControllerError, revision: str) -> None:
        """A condition beside the verdict; the event only if it says something new."""
        message = scrub(error.message, self.secrets)
        self.beside.append(Condition(kind, True, error.reason, message, revision=revision))
        said = find(self.before.conditions, kind)
        if not said or (said.reason, said.message) != (error.reason, message):
            self.emit(error.reason, message, warn=True)

    def intend(self, plan: Plan) -> None:
        """The plan is durable before its first act."""
        text = plan.render()
        reconciling = Condition(ConditionType.RECONCILING, True, "Applying", text, revision=plan.revision)
        others = [c for c in self.before.conditions if c.type is not ConditionType.RECONCILING]
        if not find(self.before.conditions, ConditionType.READY):
            others.append(
                Condition(ConditionType.READY, False, "Applying", "first pass", revision=plan.revision)
            )
        self.status = replace(self.status, plan=text, conditions=self.merged((*others, reconciling)))
        with self._store.transaction():
            self._store.apps.record_plan(self._app, plan.revision, text)
            self._store.apps.save(self.status)

    def learn(self, plan: Plan, failures: Iterable[Failure], window: float) -> None:
        """What the next plan must know: versions that failed, restarts within `window` seconds."""
        now = self._clock.now()
        serving = {r.component: r.fingerprint for r in self._store.routes.of(self._app)}
        repaired = {a.workload.component for a in plan.actions if isinstance(a, StartWorkload) and a.heals}
        for failure in failures:
            if failure.component and failure.fingerprint:
                in_service = serving.get(failure.component) == failure.fingerprint
                self._learn_failure(failure.component, failure, in_service)
                repaired |= {failure.component} if in_service else set()
        for name in repaired:
            memory = self.component(name)
            self._put(replace(memory, restarts=(*(r for r in memory.restarts if r > now - window), now)))

    def _learn_failure(self, name: ComponentName, failure: Failure, in_service: bool) -> None:
        """A version in service has been ready: what keeps it from coming back is no verdict on it."""
        message = scrub(failure.error.message, self.secrets)
        self._put(
            replace(
                self.component(name),
                failed_fingerprint="" if in_service else failure.fingerprint,
                failure_reason=failure.error.reason,
                failure=message,
            )
        )
        self.emit(failure.error.reason, message, name, warn=True)

    def remember(self, components: tuple[ComponentStatus, ...], present: set[ComponentName]) -> None:
        """The components as judged; beside them those that are not declared, but `present` all the same."""
        judged = {c.name for c in components}
        kept = [c for c in self.status.components if c.name not in judged and c.name in present]
        self.status = replace(
            self.status, components=tuple(sorted([*components, *kept], key=lambda c: c.name))
        )

    def _put(self, component: ComponentStatus) -> None:
        others = [c for c in self.status.components if c.name != component.name]
        components = tuple(sorted([*others, component], key=lambda c: c.name))
        self.status = replace(self.status, components=components)

    # --- at the end --------------------------------------------------------------------------------------------

    def converged(self, revision: str, conditions: Conditions) -> None:
        """The verdict of a pass that came through; `conditions[0]` is Ready."""
        ready = conditions[0]
        self.status = replace(self.status, failures=0)
        if ready.status and revision != self.before.applied_revision:
            self.status = replace(self.status, applied_revision=revision)
            self.emit("Applied", f"{revision[:12]}: {ready.message}")
        elif ready.status and not is_ready(self.before.conditions):
            self.emit("Ready", ready.message)
        self.conclude(conditions)

    def failed(self, kind: ConditionType, error: ControllerError) -> None:
        revision, message = self.status.attempted_revision, scrub(error.message, self.secrets)
        conditions = [Condition(ConditionType.READY, False, error.reason, message, revision=revision)]
        if not self.beside:
            conditions.append(Condition(kind, True, error.reason, message, revision=revision))
            if kind is not ConditionType.PRUNE_PENDING and not self._said_before(conditions[-1]):
                self.emit(error.reason, message, warn=True)
        self.status = replace(self.status, failures=self.before.failures + 1)
        self.conclude(tuple(conditions))

    def conclude(self, conditions: Iterable[Condition]) -> None:
        merged = self.merged((*conditions, *self.beside))
        if not find(merged, ConditionType.READY):
            waiting = Condition(ConditionType.READY, False, merged[0].reason, merged[0].message)
            merged = self.merged((waiting, *merged))
        for now in merged:
            told_here = (
                now.type in (ConditionType.DEGRADED, ConditionType.PRUNE_PENDING) or now.reason == "CrashLoop"
            )
            if told_here and now.status and not self._said_before(now):
                self.emit("CrashLoop" if now.reason == "CrashLoop" else now.type, now.message, warn=True)
        self.status = replace(self.status, conditions=merged)

    def merged(self, now: Iterable[Condition], before: Conditions | None = None) -> Conditions:
        return merge(self.before.conditions if before is None else before, now, self._clock.now())

    def _said_before(self, now: Condition) -> bool:
        said = find(self.before.conditions, now.type)
        return said is not None and (said.reason, said.revision) == (now.reason, now.revision)

    def save(self) -> None:
        settled = tuple(c for c in self.status.conditions if c.type is not ConditionType.RECONCILING)
        self.status = replace(self.status, conditions=settled)
        # Not only if it differs from `before`: `intend` may have stored something else in between.
        self._store.apps.save(self.status)

    def close(self) -> None:
        """The app is gone for good."""
        self._store.apps.forget(self._app)
