"""From an app's name to its desired state: fetch the commit, read its manifests, resolve them.

When the newest commit cannot be had or is invalid, the newest valid one is loaded instead, so that drift is still
healed and nothing else changes; the journal says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from controller.domain.conditions import ConditionType
from controller.domain.desired import DesiredApp, DesiredComponent
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.hibernation import sleeps_in
from controller.domain.names import AppName, ComponentName, bucket_name
from controller.domain.spec import AppSpec, MLComponentSpec, PlatformAppSpec, RepositorySpec, SecretSpec
from controller.manifests import load_app
from controller.ports import Revision
from controller.reconcile.house import House
from controller.reconcile.journal import Journal
from controller.reconcile.models import ModelPins, News
from controller.reconcile.resolve import Resolver

SUFFIXES = (".yaml", ".yml")
#: Most passes read what the one before has read; parsing and checking are half of a pass that changes nothing.
_load_app = lru_cache(maxsize=256)(load_app)


@dataclass(frozen=True)
class Loaded:
    revision: Revision
    spec: AppSpec
    current: bool  # whether this is what the repository says now


def own_secret(house: House, app: AppName, name: str, revision: str) -> SecretSpec | None:
    """A plain Secret in the app's own repository, as a commit has it."""
    declared = house.directory.spec.app(app)
    if declared is None:
        return None
    files = house.sources.files(Revision(declared.repository, revision, ""), declared.path, SUFFIXES)
    spec = _load_app(files, declared, house.directory.secret_names(app), house.settings.limits)
    return next((secret for secret in spec.secrets if secret.name == name), None)


def bucket_of(house: House, app: AppName, box: str) -> str:
    """As it is, or as it will be called when it is made."""
    record = house.store.boxes.get(app, ComponentName(box))
    return record.bucket if record else bucket_name(house.settings.instance, app, ComponentName(box))


class Loader:
    def __init__(self, house: House, journal: Journal, declared: PlatformAppSpec) -> None:
        self._house = house
        self._journal = journal
        self._declared = declared
        self.head: Revision | None = None  # what was fetched by this pass
        self.setbacks: tuple[Transient, ...] = ()  # what could not be resolved, but may be later
        self.news = News()  # of models
        self._models = ModelPins(house.models, self._bucket)

    def load(self, fetch: bool = True) -> Loaded:
        """Without `fetch`: the commit that is in force, as far as one is known. Git is not asked, and what an earlier
        look at it has found still holds."""
        journal = self._journal
        if not fetch and journal.before.desired_revision:
            found = (ConditionType.FETCH_FAILED, ConditionType.MANIFEST_INVALID)
            journal.beside += [c for c in journal.before.conditions if c.type in found]
            revision = Revision(self._declared.repository, journal.before.desired_revision, "")
            return self._loaded(revision, current=not journal.beside)
        try:
            self.head = revision = self._fetch()
        except (Transient, Stalled) as error:
            known = journal.before.desired_revision
            journal.note(ConditionType.FETCH_FAILED, error, known)
            if not known:
                raise
            revision = Revision(self._declared.repository, known, "")
            return self._loaded(revision, current=False)
        journal.attempted(revision.commit, revision.subject)
        try:
            return self._loaded(revision, current=True)
        except Stalled as error:  # not only invalid: the folder may be missing
            journal.note(ConditionType.MANIFEST_INVALID, error, revision.commit)
            known = journal.before.desired_revision
            if known in ("", revision.commit):
                raise
            return self._loaded(replace(revision, commit=known), current=False)

    def _loaded(self, revision: Revision, current: bool) -> Loaded:
        spec = self._read(revision)
        self._journal.hide(value for secret in spec.secrets for _, value in secret.values)
        return Loaded(revision, spec, current)

    def desired(self, loaded: Loaded, fresh: bool) -> DesiredApp:
        """`fresh`: image tags are asked for anew."""
        house, journal = self._house, self._journal
        app, revision = self._declared.name, loaded.revision
        own = {secret.name: secret for secret in loaded.spec.secrets}
        resolver = Resolver(
            engine=house.engine,
            sources=house.sources,
            instance=house.settings.instance,
            key=house.key,
            storage=house.settings.storage,
            bucket=self._bucket,
            registries=house.directory.registries(self._declared),
            secrets=journal.secrets,
            models=self._models,
            secret=lambda name: own.get(name) or house.directory.spec.secret(name, app),
            fallback=lambda name, commit: self._component_at(replace(revision, commit=commit), name),
        )
        resolved = resolver.resolve(loaded.spec, revision, journal.status, house.store.routes.of(app), fresh)
        self.setbacks = resolved.setbacks
        naps = self.naps(resolved.components)
        journal.status = replace(
            journal.status,
            desired_revision=revision.commit,
            pins=resolved.pins,
            models=resolved.model_pins,
        )
        return DesiredApp(
            app=app,
            revision=revision.commit,
            components=tuple(replace(c, asleep=naps.get(c.spec.name) == 0.0) for c in resolved.components),
            boxes=loaded.spec.boxes,
            pipelines=resolved.pipelines,
            services=resolved.services,
            unresolved=resolved.unresolved,
            prune=self._declared.prune,
            approved=journal.before.approved_revision == revision.commit,
        )

    def follow_models(self, loaded: Loaded) -> bool:
        """Look what the boxes hold by now; whether a component has to go after its model, and so to be resolved anew.
        For the end of a pass: a storage that is slow to answer must not hold up healing."""
        status = self._journal.status
        self.news = self._models.news(loaded.spec, dict(status.models))
        kept = tuple(pin for pin in status.models if pin[0] not in self.news.followers)
        self._journal.status = replace(status, models=kept)
        return bool(self.news.followers)

    def _bucket(self, box: str) -> str:
        return bucket_of(self._house, self._declared.name, box)

    def naps(self, components: Iterable[DesiredComponent]) -> dict[ComponentName, float]:
        """Seconds until each may be put to sleep, of those that ever are; see hibernation.py."""
        store, now = self._house.store, self._house.clock.now()
        routes = {route.component: route for route in store.routes.of(self._declared.name)}
        used = store.activity.of(self._declared.name)
        left = {
            (name := c.spec.name): sleeps_in(c, routes.get(name), used.get(name), now) for c in components
        }
        return {name: seconds for name, seconds in left.items() if seconds is not None}

    def newer_commit(self) -> bool:
        """Whether the repository has moved on since this pass fetched it. An unreachable server is no news."""
        repository = self._repository()
        try:
            head = self._house.sources.head(repository, self._secret(repository, repository.credentials))
        except ControllerError:
            return False
        return self.head is not None and head != self.head.commit

    def _fetch(self) -> Revision:
        repository = self._repository()
        self._journal.status = replace(self._journal.status, repository=repository.name)
        credentials = self._secret(repository, repository.credentials)
        return self._house.sources.fetch(
            repository, credentials, self._secret(repository, repository.signers)
        )

    def _secret(self, repository: RepositorySpec, name: str | None) -> SecretSpec | None:
        return self._house.directory.repository_secret(repository, name)

    def _repository(self) -> RepositorySpec:
        repository = self._house.directory.spec.repository(self._declared.repository)
        if repository is None:
            raise Stalled("RepositoryMissing", f"the Repository {self._declared.repository!r} is not there")
        return repository

    def _read(self, revision: Revision) -> AppSpec:
        files = self._house.sources.files(revision, self._declared.path, SUFFIXES)
        known = self._house.directory.secret_names(self._declared.name)
        return _load_app(files, self._declared, known, self._house.settings.limits)

    def _component_at(
        self, revision: Revision, name: ComponentName
    ) -> tuple[MLComponentSpec, AppSpec] | None:
        try:
            spec = self._read(revision)
        except ControllerError:
            return None  # the old commit is gone from the clone, or the rules became stricter
        found = next((c for c in spec.ml_components if c.name == name), None)
        return (found, spec) if found else None
