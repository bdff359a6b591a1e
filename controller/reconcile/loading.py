"""Loads the desired state of an app: fetches the commit, has its manifests read, and resolves them.

If the newest commit is invalid, or cannot be fetched or read for any reason, the newest valid one is loaded
instead, so that drift is still repaired and nothing else changes; the status says why. The same holds for an earlier
commit to which a person has rolled the app back: it is loaded until Git has a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.deploy_gate import HeldCommit, hold_commit
from controller.domain.apps.desired import DesiredApp, DesiredComponent
from controller.domain.apps.followed_images import with_images
from controller.domain.apps.hibernation import sleeps_in
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.pauses import pause_left
from controller.domain.apps.policies import NO_POLICIES
from controller.domain.apps.releases import Images, commit_of, short_release
from controller.domain.apps.rollback import entry_of, images_of, is_credible
from controller.domain.apps.secret_uses import secret_uses
from controller.domain.apps.spec import (
    AppSpec,
    GitRef,
    MLComponentSpec,
    MLTarget,
    PlatformAppSpec,
    RefKind,
    RepositorySpec,
)
from controller.domain.apps.status import Rollback
from controller.domain.errors import ControllerError, Stalled, Transient, Waiting
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName, bucket_name
from controller.domain.reasons import Reason
from controller.domain.storage.planner import begins_as_copy
from controller.ports import Revision
from controller.reconcile.bugs import as_transient
from controller.reconcile.commit_manifests import read_manifests
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.image_choice import ImageChoice
from controller.reconcile.models import ModelPins, ModelUpdate
from controller.reconcile.observe import sources_of
from controller.reconcile.resolve import Resolver, smoke_case
from controller.reconcile.secret_sources import SecretSources
from controller.reconcile.status_writer import StatusWriter
from controller.tracing import span

_UNTIL_ASKED = 3600.0  # seconds until it is looked again at what waits for a person, who asks for a pass


@dataclass(frozen=True)
class LoadedCommit:
    revision: Revision
    spec: AppSpec
    current: bool  # whether this is the current state of the repository


def bucket_of(deps: ReconcilerDeps, app: AppName, box: str) -> str:
    """Return the name of the bucket as it is, or as it will be."""
    record = deps.store.boxes.get(app, ComponentName(box))
    return record.bucket if record else bucket_name(deps.settings.instance, app, ComponentName(box))


def fetch(deps: ReconcilerDeps, repository: RepositorySpec) -> Revision:
    credentials = deps.catalog.repository_secret(repository, repository.credentials)
    signers = deps.catalog.repository_secret(repository, repository.signers)
    with span(deps.tracer, "fetch", {"prichal.repository": repository.name}):
        return deps.sources.fetch(repository, credentials, signers)


class CommitLoader:
    """`ungated`: a new commit is loaded even if it is not to be applied yet. `head` was fetched already."""

    def __init__(
        self,
        deps: ReconcilerDeps,
        status_writer: StatusWriter,
        declared: PlatformAppSpec,
        ungated: bool = False,
        head: Revision | None = None,
    ) -> None:
        self._deps = deps
        self._ungated = ungated
        self._status_writer = status_writer
        self._declared = declared
        self.head = head  # the commit that this pass fetched
        # Whether the app was rolled back, and stays at what that commit was resolved to.
        self.is_earlier = False
        self.ended_rollback: Rollback | None = None  # one that does not count any more
        self.held: HeldCommit | None = None  # why a newer commit is not loaded
        self.asks_later = False  # whether another pass has to look for a new commit
        self.model_updates = ModelUpdate()
        self.secrets = SecretSources(deps, declared.name, ())  # of the commit that was resolved last
        self._models = ModelPins(deps.models, self._bucket_of_model)
        self._images = ImageChoice(deps, status_writer, declared, ungated)

    def load(self, fetch: bool = True) -> LoadedCommit:
        """Load the app. Without `fetch`, load the commit in force, if one is known: Git is not called, and
        earlier findings about it still hold.
        """
        rollback = self._rollback()
        if rollback is not None and not (fetch and self._is_over(rollback)):
            return self._load_earlier(rollback)
        self._status_writer.record_rollback_end()
        return self._load_newest(fetch)

    def _load_newest(self, fetch: bool) -> LoadedCommit:
        status_writer = self._status_writer
        if not fetch and status_writer.before.desired_revision:
            status_writer.keep_conditions(ConditionType.FETCH_FAILED, ConditionType.MANIFEST_INVALID)
            revision = Revision(self._declared.repository, status_writer.before.desired_revision, "")
            return self._loaded(revision, current=not status_writer.extra_conditions)
        app, known = self._declared.name, status_writer.before.desired_revision
        try:
            with as_transient(app, "fetching"):
                self.head = revision = self.head or self._fetch()
        except (Transient, Stalled) as error:
            status_writer.add_condition(ConditionType.FETCH_FAILED, error, known)
            if not known:
                raise
            return self._loaded(Revision(self._declared.repository, known, ""), current=False)
        pusher = self._deps.store.repositories.pusher(self._declared.pushed_to, revision.commit)
        status_writer.record_attempt(revision.commit, revision.subject, pusher)
        if held := self._hold(revision):
            self.held = held
            status_writer.record_held(held, revision.commit)
            if not known:
                raise Waiting(held.reason, held.message, held.retry_after or _UNTIL_ASKED)
            return self._loaded(replace(revision, commit=known), current=True)
        try:
            with as_transient(app, Localizable("reading commit {commit}", commit=revision.commit[:12])):
                return self._loaded(revision, current=True)
        except (Transient, Stalled) as error:  # not only invalid: the folder may be missing
            invalid = isinstance(error, Stalled)
            kind = ConditionType.MANIFEST_INVALID if invalid else ConditionType.FETCH_FAILED
            status_writer.add_condition(kind, error, revision.commit)
            if known in ("", revision.commit):
                raise
            return self._loaded(replace(revision, commit=known), current=False)

    def _hold(self, revision: Revision) -> HeldCommit | None:
        """Return why the commit has to wait. The one in force may be applied, whatever the rules say now."""
        status, rules = self._status_writer.before, self._declared.deploy
        if self._ungated or revision.commit == status.desired_revision:
            return None
        now, after = self._deps.clock.now(), self._deps.ticks.after
        approved = commit_of(status.approved_revision)
        return hold_commit(status.app, revision.commit, rules, approved, now, after)

    # --- an earlier commit -------------------------------------------------------------------------------------

    @cached_property
    def _history(self) -> tuple[AppliedRevision, ...]:
        """What was applied before this pass. It is read for apps that are rolled back alone."""
        return self._deps.store.history.releases(self._declared.name)

    def _rollback(self) -> Rollback | None:
        """Return the rollback in force. One that nobody can have asked for does not count."""
        status = self._status_writer.before
        rollback = status.rollback
        if rollback is None or is_credible(status, self._history):
            return rollback
        told = Localizable(
            "{revision} was never applied here, so the rollback to it by {by} is dropped",
            revision=short_release(rollback.revision),
            by=rollback.by,
        )
        self._status_writer.record_event(Reason.ROLLBACK_REFUSED, told, warn=True)
        self.ended_rollback = rollback
        return None

    def _is_over(self, rollback: Rollback) -> bool:
        """Return whether Git has a new commit, or a registry a newer image, which ends the rollback. The first pass
        does not ask, so that going back waits for no Git server; another one follows."""
        status_writer = self._status_writer
        said = find(status_writer.before.conditions, ConditionType.ROLLED_BACK)
        if not said or said.revision != rollback.revision:
            self.asks_later = True
            return False
        try:
            with as_transient(self._declared.name, "fetching"):
                self.head = self._fetch()
        except (Transient, Stalled) as error:
            status_writer.add_condition(ConditionType.FETCH_FAILED, error, rollback.revision)
            return False
        if self.head.commit == commit_of(rollback.replaced) and not self._has_newer_image(rollback):
            return False
        self.ended_rollback = rollback
        return True

    def _has_newer_image(self, rollback: Rollback) -> bool:
        status = self._status_writer.before
        back = images_of(status, self._history, rollback.revision)
        return self._images.has_newer_than(rollback, back)

    def _load_earlier(self, rollback: Rollback) -> LoadedCommit:
        """Load the commit of a rollback with the images and models that it had. If that is impossible, the commit
        in force stays, and the status says why."""
        status_writer, known = self._status_writer, self._status_writer.before.desired_revision
        self.is_earlier = True
        entry = entry_of(self._history, rollback.revision)
        author, subject = (entry.author, entry.subject) if entry else ("", "")
        commit = commit_of(rollback.revision)
        revision = Revision(self._declared.repository, commit, "", author, subject)
        self._images.fix(status_writer.before.desired_images)
        try:
            with as_transient(
                self._declared.name, Localizable("reading commit {commit}", commit=revision.commit[:12])
            ):
                loaded = self._recalled(revision)
        except (Transient, Stalled) as error:
            status_writer.record_rollback(rollback, is_there=False)
            told = type(error)(
                error.reason,
                Localizable(
                    "cannot go back to {commit}: {error}", commit=revision.commit[:12], error=error.message
                ),
            )
            kind = ConditionType.STALLED if isinstance(error, Stalled) else ConditionType.FETCH_FAILED
            status_writer.add_condition(kind, told, revision.commit)
            if known in ("", revision.commit):
                raise told from error
            return self._loaded(replace(revision, commit=known), current=False)
        status_writer.record_rollback(rollback, is_there=True)
        back = images_of(status_writer.before, self._history, rollback.revision)
        self._images.fix(back)
        self._images.reject(rollback, back)
        if entry and status_writer.before.desired != rollback.revision:
            status_writer.begin_revision(revision.commit)
            status_writer.record_resolved(revision.commit, entry.pins, entry.models)
        return loaded

    def _recalled(self, revision: Revision) -> LoadedCommit:
        """Load a commit that was in the clone before. A new clone may need it from the server."""
        try:
            return self._loaded(revision, current=True)
        except (Transient, Stalled) as error:
            if error.reason != Reason.REVISION_GONE:
                raise
        repository = replace(self._repository(), ref=GitRef(RefKind.COMMIT, revision.commit))
        self._fetch(repository)
        return self._loaded(revision, current=True)

    # --- resolving ---------------------------------------------------------------------------------------------

    def _loaded(self, revision: Revision, current: bool) -> LoadedCommit:
        in_force = revision.commit == self._status_writer.before.desired_revision
        policies = NO_POLICIES if in_force else self._deps.settings.policies
        with span(self._deps.tracer, "read manifests"):
            spec = read_manifests(self._deps, revision, self._declared, policies)
        self._status_writer.hide(value for secret in spec.secrets for _, value in secret.values)
        return LoadedCommit(revision, spec, current)

    def desired(self, loaded: LoadedCommit, fresh: bool) -> DesiredApp:
        """Return the desired state. `fresh` resolves image tags again."""
        deps, status_writer = self._deps, self._status_writer
        app, revision = self._declared.name, loaded.revision
        status_writer.begin_revision(revision.commit)
        paused = {
            setback.subject: (Stalled if setback.stalled else Transient)(setback.reason, setback.message)
            for setback in status_writer.status.setbacks
            if setback.resolving and pause_left(setback, deps.policy, status_writer.begun) > 0
        }
        images = self._chosen_images(loaded)
        status_writer.record_images(images)
        spec = with_images(loaded.spec, images)
        self.secrets = SecretSources(deps, app, loaded.spec.secrets)
        status_writer.record_secrets(secret_uses(loaded.spec, self.secrets.declared))
        status_writer.record_encrypted(loaded.spec.encrypted)
        resolver, routes = self._resolver(revision, paused), deps.store.routes.of(app)
        resolved = resolver.resolve(spec, revision, status_writer.status, routes, fresh)
        left = resolver.left(spec, status_writer.status, routes)
        for subject, error in resolved.setbacks:
            if subject not in paused:
                status_writer.set_back(subject, error, resolving=True)
        status_writer.drop_resolved(subject for subject, _ in resolved.setbacks)
        idle = self.idle_timeouts((*resolved.components, *left))
        status_writer.record_resolved(revision.commit, resolved.pins, resolved.model_pins)
        return DesiredApp(
            app=app,
            revision=revision.commit,
            components=tuple(replace(c, asleep=idle.get(c.spec.name) == 0.0) for c in resolved.components),
            left=tuple(replace(c, asleep=idle.get(c.spec.name) == 0.0) for c in left),
            boxes=loaded.spec.boxes,
            pipelines=resolved.pipelines,
            services=resolved.services,
            unresolved=resolved.unresolved,
            holders=tuple(
                (api.path, api.target.component if isinstance(api.target, MLTarget) else None)
                for api in loaded.spec.apis
            ),
            prune=self._declared.prune,
            approved=commit_of(status_writer.before.approved_revision) == revision.commit,
            boxes_of=self._boxes_of,
        )

    def image_warnings(self) -> Iterator[str]:
        return self._images.warnings()

    def newer_images(self) -> bool:
        """Return whether newer images were found since this pass began, which nothing holds."""
        return not self.is_earlier and self.held is None and self._images.found_newer()

    def _chosen_images(self, loaded: LoadedCommit) -> Images:
        """Return the images of this pass, and record why newer ones wait, unless a new commit waits already."""
        images, held = self._images.choose(loaded.spec, loaded.revision.commit)
        if held is not None and self.held is None:
            self.held = held
            commit = self._status_writer.before.desired_revision
            self._status_writer.record_held(held, self._images.newest_release(commit))
        return images

    def _resolver(self, revision: Revision, paused: Mapping[str, Stalled | Transient]) -> Resolver:
        deps = self._deps
        return Resolver(
            engine=deps.engine,
            sources=deps.sources,
            instance=deps.settings.instance,
            key=deps.key,
            storage=deps.settings.storage,
            bucket=self._bucket,
            registries=deps.catalog.registries(self._declared),
            packages=deps.catalog.packages(self._declared),
            limits=self._declared.limits,
            secrets=self._status_writer.secrets,
            models=self._models,
            paused=paused,
            secret=self.secrets.get,
            secret_names=self.secrets.names,
            fallback=lambda name, commit: self._component_at(replace(revision, commit=commit), name),
            smoke=lambda test, commit: smoke_case(deps.sources, test, replace(revision, commit=commit)),
        )

    def follow_models(self, loaded: LoadedCommit) -> bool:
        """Check what the boxes contain now; return whether a component has to follow its model, and so to be
        resolved again. Called at the end of a pass, so that a slow storage does not delay repairs.
        """
        models = self._status_writer.status.models
        self.model_updates = self._models.updates(loaded.spec, dict(models))
        self._status_writer.drop_models(self.model_updates.followers)
        return bool(self.model_updates.followers)

    def _bucket(self, box: str) -> str:
        return bucket_of(self._deps, self._declared.name, box)

    @property
    def _boxes_of(self) -> AppName | None:
        preview = self._declared.preview
        return preview.app if preview and preview.copies_boxes else None

    def _bucket_of_model(self, box: str) -> str:
        """Return the bucket of a box with a model. Raises Stalled `AwaitingBox` while the box is being copied: half of
        a model must not be taken for it."""
        sources = {record.box: record for record in sources_of(self._deps, self._boxes_of)}
        name = ComponentName(box)
        if begins_as_copy(self._deps.store.boxes.get(self._declared.name, name), sources.get(name)):
            why = Localizable("it waits until the boxes of the preview are copied: {names}", names=box)
            raise Stalled(Reason.AWAITING_BOX, why)
        return self._bucket(box)

    def idle_timeouts(self, components: Iterable[DesiredComponent]) -> dict[ComponentName, float]:
        """Return the seconds until each component may be put to sleep, for those that ever are; see
        hibernation.py.
        """
        store, now = self._deps.store, self._deps.clock.now()
        routes = {route.component: route for route in store.routes.of(self._declared.name)}
        used = store.activity.of(self._declared.name)
        left = {
            (name := c.spec.name): sleeps_in(c, routes.get(name), used.get(name), now) for c in components
        }
        return {name: seconds for name, seconds in left.items() if seconds is not None}

    def newer_commit(self) -> bool:
        """Return whether the repository has a newer commit than the one fetched; False if the server does not
        answer.
        """
        repository = self._repository()
        credentials = self._deps.catalog.repository_secret(repository, repository.credentials)
        try:
            with as_transient(self._declared.name, Localizable("looking for a newer commit")):
                head = self._deps.sources.head(repository, credentials)
        except ControllerError:
            return False
        return self.head is not None and head != self.head.commit

    def _fetch(self, repository: RepositorySpec | None = None) -> Revision:
        repository = repository or self._repository()
        self._status_writer.record_repository(self._declared.pushed_to)
        return fetch(self._deps, repository)

    def _repository(self) -> RepositorySpec:
        repository = self._deps.catalog.spec.repository(self._declared.repository)
        if repository is None:
            raise Stalled(
                Reason.REPOSITORY_MISSING,
                Localizable(
                    "the Repository {repository!r} does not exist: add it to the platform folder",
                    repository=self._declared.repository,
                ),
            )
        return repository

    def _component_at(
        self, revision: Revision, name: ComponentName
    ) -> tuple[MLComponentSpec, AppSpec] | None:
        try:
            with as_transient(
                self._declared.name, Localizable("reading commit {commit}", commit=revision.commit[:12])
            ):
                spec = read_manifests(self._deps, revision, self._declared)
        except ControllerError:
            return None  # the old commit is missing in the clone, or the rules became stricter
        found = next((c for c in spec.ml_components if c.name == name), None)
        return (found, spec) if found else None
