"""The only writer of an app's status. For one pass, it builds the new status, records events on transitions, and saves
once at the end.

An event is recorded once, when something changes; a state that continues is only in the conditions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from controller.domain.apps.age_keys import EncryptedFiles
from controller.domain.apps.commit_status import commit_status, untold
from controller.domain.apps.conditions import Condition, Conditions, ConditionType, find, is_ready, merge
from controller.domain.apps.deploy_gate import HeldCommit
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import Plan, StartWorkload, subject, subject_text
from controller.domain.apps.releases import Images, changed_images, commit_of, release, short_release
from controller.domain.apps.rollback import holding, why_failed
from controller.domain.apps.rollout_watch import FailedRollout, RolloutWatch
from controller.domain.apps.secret_uses import SecretUse
from controller.domain.apps.spec import ComponentKind
from controller.domain.apps.status import (
    AppStatus,
    BoxStatus,
    ComponentStatus,
    Event,
    EventType,
    Rollback,
    Setback,
    last_exit_of,
    replicas_of,
)
from controller.domain.errors import ControllerError, Stalled, Transient, Waiting
from controller.domain.forges import Forge
from controller.domain.image_names import split_reference
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, ComponentName, RepositoryName, is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import Secret, scrub
from controller.domain.text import is_excerpt
from controller.ports import Clock, Store
from controller.reconcile.executor import ActionFailure

STAYS_SUSPENDED = Localizable("nothing is changed until the app is resumed: prichal resume")
#: The same for one that its PlatformApp has suspended.
STAYS_DECLARED = Localizable(
    "nothing is changed: its PlatformApp says suspend: true; to go on, remove that there"
)
_WORDS = 8  # the least length, in characters, of a message that later ones need not repeat


class StatusWriter:
    """`status` is what will be saved and `before` the previous status. `beside` has conditions that hold
    besides the outcome (fetch failed, manifests invalid). A `silent` writer records no events, for reading
    without acting. Commit statuses go to the `forge`, through the outbox.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        app: AppName,
        secrets: tuple[Secret, ...],
        silent: bool = False,
        forge: Forge | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._app = app
        self.secrets = secrets
        self._silent = silent
        self._forge = forge
        self.begun = clock.now()  # the time of the pass: what failed in it is not tried again in it
        self.before: AppStatus = store.apps.status(app)
        self._status: AppStatus = self.before
        self._extra_conditions: tuple[Condition, ...] = ()
        self._rolled_back: Condition | None = None
        self._held: Condition | None = None
        self._told: list[str] = []  # messages of the events of this pass

    def record_event(
        self, reason: Reason, message: str, component: ComponentName | None = None, warn: bool = False
    ) -> None:
        """Record an event at once, so that people who wait for the pass see its progress."""
        if self._silent:
            return
        text = scrub(message, self.secrets)
        self._told.append(text)
        self._add(reason, text, self.revision, component, warn)

    def record_progress(
        self,
        reason: Reason,
        message: str,
        revision: str,
        component: ComponentName | None = None,
        warn: bool = False,
    ) -> None:
        """Record that an action of a plan was done. Called by several threads; conditions repeat nothing of it."""
        self._add(reason, scrub(message, self.secrets), revision, component, warn)

    def _add(
        self, reason: Reason, text: str, revision: str, component: ComponentName | None, warn: bool
    ) -> None:
        kind = EventType.WARNING if warn else EventType.NORMAL
        self._store.events.add([Event(self._app, kind, reason, text, component, revision, self._clock.now())])

    @property
    def status(self) -> AppStatus:
        """The status as it will be saved. Only the methods of this class change it."""
        return self._status

    @property
    def revision(self) -> str:
        """The commit that the pass is about."""
        if self._held and self.before.desired_revision:
            return self.before.desired_revision
        return commit_of(self._rolled_back.revision) if self._rolled_back else self.status.attempted_revision

    @property
    def rolled_back(self) -> Condition | None:
        return self._rolled_back

    @property
    def held(self) -> Condition | None:
        """That a new commit is not applied yet."""
        return self._held

    @property
    def extra_conditions(self) -> tuple[Condition, ...]:
        return self._extra_conditions

    def hide(self, secrets: Iterable[Secret]) -> None:
        """Add values that must not appear in any text of this pass."""
        self.secrets = (*self.secrets, *secrets)

    def component(self, name: ComponentName) -> ComponentStatus:
        return self.status.component(name) or ComponentStatus(name, ComponentKind.ML_COMPONENT)

    # --- on the way --------------------------------------------------------------------------------------------

    def use_approval(self) -> None:
        """Forget a person's approval: it is used once."""
        self._store.apps.approve(self._app, "")

    def record_repository(self, name: RepositoryName) -> None:
        self._status = replace(self._status, repository=name)

    def keep_conditions(self, *kinds: ConditionType) -> None:
        """Take over the conditions of these types from the previous status: they were not examined again."""
        self._extra_conditions += tuple(c for c in self.before.conditions if c.type in kinds)

    def begin_revision(self, commit: str) -> None:
        """Forget setbacks if this is another commit than the one that the status is about."""
        if self._status.desired_revision != commit:
            self._status = replace(self._status, setbacks=())

    def record_resolved(
        self,
        commit: str,
        pins: tuple[tuple[str, str], ...],
        models: tuple[tuple[ComponentName, str], ...],
    ) -> None:
        """Record what the images and models of the commit were resolved to."""
        self._status = replace(self._status, desired_revision=commit, pins=pins, models=models)

    def record_images(self, images: Images) -> None:
        """Record which followed images the commit is deployed with."""
        self._status = replace(self._status, desired_images=images)

    def record_newest_images(self, images: Images, why: Mapping[str, str]) -> None:
        """Record the newest images that are followed, whether they may be deployed yet or not."""
        before = self.before.attempted_images
        self._status = replace(self._status, attempted_images=images)
        for name, old, new in changed_images(before, images):
            now, past = split_reference(new), split_reference(old)
            image = f"{now[0]}:{now[1]} ({now[2][7:19]})"
            told: str = Localizable("{subject}: {image}", subject=name, image=image)
            if old:
                before_it = f"{past[1]} ({past[2][7:19]})"
                told = Localizable(
                    "{subject}: {image} in place of {old}", subject=name, image=image, old=before_it
                )
            self.record_event(Reason.NEW_IMAGE, joined(filter(None, (told, why.get(name, ""))), ": "))

    def record_secrets(self, secrets: tuple[SecretUse, ...]) -> None:
        """Record which Secrets the manifests name."""
        self._status = replace(self._status, secrets=secrets)

    def record_encrypted(self, files: tuple[EncryptedFiles, ...]) -> None:
        """Record which files were decrypted. Those of a new commit are stored beside the old ones at once: nobody may
        delete a key that a pass in progress needs."""
        self._status = replace(self._status, encrypted=files)
        if self._silent or files in (self.before.encrypted, ()):
            return
        stored = self._store.apps.status(self._app)
        both = tuple(dict.fromkeys((*(stored.encrypted or ()), *files)))
        self._store.apps.save(replace(stored, encrypted=both))

    def drop_models(self, components: Collection[ComponentName]) -> None:
        """Forget the models of these components, so that they are resolved again."""
        kept = tuple(pin for pin in self._status.models if pin[0] not in components)
        self._status = replace(self._status, models=kept)

    def record_boxes(self, boxes: tuple[BoxStatus, ...]) -> None:
        self._status = replace(self._status, boxes=boxes)

    def count_failure(self) -> None:
        """Count the pass as failed, for the backoff."""
        self._status = replace(self._status, failures=self.before.failures + 1)

    def record_attempt(self, commit: str, subject: str, pusher: str = "") -> None:
        self._status = replace(self._status, attempted_revision=commit)
        if commit != self.before.attempted_revision:
            by = Localizable(", pushed by {pusher}", pusher=pusher) if pusher else ""
            self.record_event(Reason.NEW_REVISION, f"{commit[:12]} {subject}".rstrip() + by)

    def record_rollback(self, rollback: Rollback, is_there: bool) -> None:
        """Record that the app is at an earlier revision."""
        said = find(self.before.conditions, ConditionType.ROLLED_BACK)
        self._status = replace(self._status, failed_rollout=why_failed(rollback, self.before.failed_rollout))
        self._rolled_back = holding(self._app, rollback, is_there, self._status.failed_rollout)
        if not said or said.revision != rollback.revision:
            where = Localizable(
                "from {replaced} to {revision}",
                replaced=short_release(rollback.replaced),
                revision=short_release(rollback.revision),
            )
            self.record_event(
                Reason.ROLLED_BACK, Localizable("rolled back {where} by {by}", where=where, by=rollback.by)
            )

    def record_rollback_end(self) -> None:
        """Record that the app follows Git again."""
        self._status = replace(self._status, failed_rollout=None)
        if said := find(self.before.conditions, ConditionType.ROLLED_BACK):
            self.record_event(
                Reason.ROLLBACK_ENDED,
                Localizable("{revision} is no longer held", revision=short_release(said.revision)),
            )

    def record_held(self, held: HeldCommit, commit: str) -> None:
        """Record that a new commit is not applied yet."""
        self._held = held.condition(commit)
        if not self._is_known(self._held):
            self.record_event(held.reason, held.message)

    def reset_backoff(self) -> None:
        """Forget earlier failures and crash loops, because a person asked for another attempt."""
        components = tuple(
            replace(c, failed_fingerprint="", failure="", failure_reason=Reason.NONE, restarts=())
            for c in self.status.components
        )
        self._status = replace(self._status, components=components, setbacks=())

    def add_condition(self, kind: ConditionType, error: ControllerError, revision: str) -> None:
        """Add a condition besides the outcome; an event is recorded only if it says something new."""
        message = scrub(error.message, self.secrets)
        condition = Condition(kind, True, error.reason, message, revision=revision)
        self._extra_conditions = (*self._extra_conditions, condition)
        said = find(self.before.conditions, kind)
        if not said or said.reason != error.reason or not is_excerpt(said.message, message):
            self.record_event(error.reason, message, warn=True)

    def record_plan(self, plan: Plan) -> None:
        """Store the plan before its first action."""
        text = plan.render()
        reconciling = Condition(
            ConditionType.RECONCILING, True, Reason.APPLYING, text, revision=plan.revision
        )
        others = [c for c in self.before.conditions if c.type is not ConditionType.RECONCILING]
        if not find(self.before.conditions, ConditionType.READY):
            others.append(
                Condition(
                    ConditionType.READY,
                    False,
                    Reason.APPLYING,
                    Localizable("first pass"),
                    revision=plan.revision,
                )
            )
        self._status = replace(self._status, plan=text, conditions=self.merged((*others, reconciling)))
        with self._store.transaction():
            self._store.apps.record_plan(self._app, plan.revision, text)
            self._save()

    def record_failures(self, plan: Plan, failures: Iterable[ActionFailure], window: float) -> None:
        """Record what the next plan must know: versions that failed, restarts within `window` seconds, and
        other failures, which are tried again after a pause.
        """
        now = self._clock.now()
        serving = {r.component: r.fingerprint for r in self._store.routes.of(self._app)}
        starts = [action for action in plan.actions if isinstance(action, StartWorkload)]
        repaired = {a.workload.component for a in starts if a.heals and not a.node_lost}
        for failure in failures:
            if failure.component and failure.fingerprint:
                in_service = serving.get(failure.component) == failure.fingerprint
                self._record_failure(failure.component, failure, in_service)
                repaired |= {failure.component} if in_service else set()
            elif not isinstance(failure.error, Waiting):
                self.set_back(subject_text(*failure.subject), failure.error, version=failure.version)
                repaired.discard(failure.component or ComponentName(""))
        for name in repaired:
            memory = self.component(name)
            self._put(replace(memory, restarts=(*(r for r in memory.restarts if r > now - window), now)))

    def set_back(
        self, subject: str, error: ControllerError, resolving: bool = False, version: str = ""
    ) -> None:
        """Record that another attempt has failed."""
        before = next(
            (s for s in self.status.setbacks if (s.subject, s.resolving) == (subject, resolving)), None
        )
        message = scrub(error.message, self.secrets)
        attempts = before.attempts + 1 if before else 1
        at, stalled = self._clock.now(), isinstance(error, Stalled)
        now = Setback(subject, error.reason, message, attempts, at, stalled, resolving, version)
        others = [s for s in self.status.setbacks if s is not before]
        self._status = replace(self._status, setbacks=tuple(sorted([*others, now], key=lambda s: s.subject)))
        if not resolving and (before is None or before.reason != error.reason):
            declared = subject if is_dns_label(subject) else None
            self.record_event(error.reason, message, ComponentName(declared) if declared else None, warn=True)

    def drop_setbacks(self, plan: Plan) -> None:
        """Forget the setbacks of what is done or no longer wanted: `plan` is what is left to do."""
        wanted = {subject_text(*subject(group)) for group in plan.steps} | {h.subject for h in plan.holds}
        self._keep_setbacks(lambda setback: setback.resolving or setback.subject in wanted)
        if any(setback.reason == Reason.IMAGE_GONE for setback in self.status.setbacks):
            # pins may refer to images that are no longer on this host
            self._status = replace(self._status, pins=())

    def drop_resolved(self, unresolved: Iterable[str]) -> None:
        """Forget the setbacks of what could be resolved: all but these subjects."""
        still = set(unresolved)
        self._keep_setbacks(lambda setback: not setback.resolving or setback.subject in still)

    def _keep_setbacks(self, wanted: Callable[[Setback], bool]) -> None:
        self._status = replace(self._status, setbacks=tuple(filter(wanted, self.status.setbacks)))

    def _record_failure(self, name: ComponentName, failure: ActionFailure, in_service: bool) -> None:
        """Record the failure of a version. A version in service has been ready, so the failure does not
        disqualify it.
        """
        message = scrub(failure.error.message, self.secrets)
        before = self.component(name)
        self._put(
            replace(
                before,
                failed_fingerprint="" if in_service else failure.fingerprint,
                failure_reason=failure.error.reason,
                failure=message,
            )
        )
        if before.failure_reason != failure.error.reason or not is_excerpt(before.failure, message):
            self.record_event(failure.error.reason, message, name, warn=True)

    def record_components(self, components: tuple[ComponentStatus, ...], present: set[ComponentName]) -> None:
        """Store the judged components, and those that are `present` although they are not declared."""
        judged = {c.name for c in components}
        kept = [c for c in self.status.components if c.name not in judged and c.name in present]
        self._status = replace(
            self._status, components=tuple(sorted([*components, *kept], key=lambda c: c.name))
        )

    def record_observed(self, observed: ObservedApp) -> None:
        """Record the containers that there are, and how those have ended that the platform did not stop. What is
        repaired later in the pass would leave no trace of it."""
        now = self._clock.now()
        for component in self.status.components:
            workloads = observed.of(component.name)
            exit = last_exit_of(workloads, now, component.last_exit)
            self._put(replace(component, replicas=replicas_of(workloads), last_exit=exit))

    def record_watch(self, name: ComponentName, watch: RolloutWatch | None) -> None:
        """Record that the version in service is watched from now on, or no longer."""
        component = self.status.component(name)
        if component and component.watch != watch:
            self._put(replace(component, watch=watch))

    def record_failed_rollout(self, failed: FailedRollout) -> None:
        """Record which version has failed. It is stored at once, in the transaction of the decision to roll back: a
        daemon that dies before the end of the pass would forget it."""
        self._status = replace(self._status, failed_rollout=failed)
        if not self._silent:
            self._store.apps.save(replace(self._store.apps.status(self._app), failed_rollout=failed))

    def _put(self, component: ComponentStatus) -> None:
        others = [c for c in self.status.components if c.name != component.name]
        components = tuple(sorted([*others, component], key=lambda c: c.name))
        self._status = replace(self._status, components=components)

    # --- at the end --------------------------------------------------------------------------------------------

    def record_success(self, revision: str, conditions: Conditions) -> None:
        """Conclude a pass that has finished; `conditions[0]` is Ready."""
        ready = conditions[0]
        self._status = replace(self._status, failures=0)
        applied = release(revision, self._status.desired_images)
        if ready.status and applied != self.before.applied:
            images = self._status.desired_images
            self._status = replace(self._status, applied_revision=revision, applied_images=images)
            self.record_event(Reason.APPLIED, joined((short_release(applied), ready.message), ": "))
        elif ready.status and not is_ready(self.before.conditions):
            self.record_event(Reason.READY, ready.message)
        self.set_conditions(conditions)

    def record_failure(self, kind: ConditionType, error: ControllerError) -> None:
        revision, message = self.revision, scrub(error.message, self.secrets)
        conditions = [Condition(ConditionType.READY, False, error.reason, message, revision=revision)]
        if not self.extra_conditions:
            conditions.append(Condition(kind, True, error.reason, message, revision=revision))
            told = kind is ConditionType.PRUNE_PENDING or message in self._told
            if not told and not self._is_known(conditions[-1]):
                self.record_event(error.reason, message, warn=True)
        self.count_failure()
        self.set_conditions(tuple(conditions))

    def set_conditions(self, conditions: Iterable[Condition]) -> None:
        beside = filter(None, (self._rolled_back, self._held))
        merged = self.merged((*conditions, *self.extra_conditions, *beside))
        if not find(merged, ConditionType.READY):
            waiting = Condition(ConditionType.READY, False, merged[0].reason, merged[0].message)
            merged = self.merged((waiting, *merged))
        for now in merged:
            told_here = (
                now.type in (ConditionType.DEGRADED, ConditionType.PRUNE_PENDING)
                or now.reason == Reason.CRASH_LOOP
            )
            if told_here and now.status and not self._is_known(now):
                reason = Reason.CRASH_LOOP if now.reason == Reason.CRASH_LOOP else Reason(now.type)
                self.record_event(reason, self._without_reported(now.message), warn=True)
        self._status = replace(self._status, conditions=merged)

    def _without_reported(self, message: str) -> str:
        """Return the message without texts that earlier events of the pass contained in full."""
        text = message
        for told in sorted(self._told, key=len, reverse=True):
            if len(told) >= _WORDS:  # a short word may be within another one by chance
                text = re.sub(rf"(?<!\w){re.escape(told)}(?!\w)", "", text)
        text = text.strip()
        return text if text and text != message else message

    def merged(self, now: Iterable[Condition], before: Conditions | None = None) -> Conditions:
        return merge(self.before.conditions if before is None else before, now, self._clock.now())

    def _is_known(self, now: Condition) -> bool:
        said = find(self.before.conditions, now.type)
        return said is not None and (said.reason, said.revision) == (now.reason, now.revision)

    def save(self) -> None:
        """Save the status. If a bug makes it impossible to write, the previous status is saved with that
        error, and Transient `InternalError` is raised.
        """
        settled = tuple(c for c in self.status.conditions if c.type is not ConditionType.RECONCILING)
        self._status = replace(self._status, conditions=settled)
        try:
            self._save()
        except ControllerError:
            raise
        except Exception as bug:
            message = Localizable(
                "the status could not be saved: {name}; see the daemon's log", name=type(bug).__name__
            )
            error = Transient(Reason.INTERNAL_ERROR, message)
            self._status, self._extra_conditions = self.before, ()
            self.record_failure(ConditionType.APPLY_FAILED, error)
            self._store.apps.save(self.status)
            raise error from bug

    def _save(self) -> None:
        """Save the status, even if it equals `before`, since `record_plan` may have stored another one in between.
        Its commit statuses are put into the outbox in the same transaction."""
        now = self.status
        said = (
            commit_status(now.conditions, now.attempted_revision, now.failed_rollout) if self._forge else None
        )
        news = untold(self.status.told, said)
        if self._forge is None or not news:
            self._store.apps.save(self.status)
            return
        self._status = replace(self._status, told=said)
        with self._store.transaction():
            self._store.apps.save(self.status)
            for status in news:
                self._store.webhooks.supersede(self._forge.message(status, self._clock.now()))

    def delete(self) -> None:
        """Delete the status of an app that is gone for good."""
        self._store.apps.forget(self._app)
