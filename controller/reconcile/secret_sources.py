"""Where the Secrets of an app come from: people, its repository, the platform folder, and for a preview its app."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.domain.apps.owned_secrets import OwnedSecrets
from controller.domain.apps.spec import SecretSpec
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.secret import Secret
from controller.reconcile.commit_manifests import spec_at
from controller.reconcile.deps import ReconcilerDeps


def run_secret(deps: ReconcilerDeps, app: AppName, name: str, revision: str) -> SecretSpec | None:
    """Return a Secret for a run of a pipeline, whose manifests are those of a commit. Raises Stalled
    `SecretUnreadable`."""
    if owned := owned_secrets(deps, app).get(name):
        return owned
    spec = spec_at(deps, app, revision)
    return SecretSources(deps, app, spec.secrets if spec else ()).get(name)


def owned_secrets(deps: ReconcilerDeps, app: AppName) -> OwnedSecrets:
    """Return the Secrets that people have set for an app. A preview also has those of its app that it was given; its
    own ones go before."""
    own, declared = deps.store.secrets.of(app), deps.catalog.spec.app(app)
    preview = declared.preview if declared else None
    if preview is None:
        return own
    return own.over(deps.store.secrets.of(preview.app).only(preview.secrets.has))


class SecretSources:
    """Where the Secrets of an app come from. One that a person has set replaces, as a whole, one of that name in the
    app's own repository, and that one replaces one in the platform folder."""

    def __init__(self, deps: ReconcilerDeps, app: AppName, own: Iterable[SecretSpec]) -> None:
        self._own = {secret.name: secret for secret in own}
        self._owned = owned_secrets(deps, app)
        self._platform = {secret.name: secret for secret in deps.catalog.given(app)}

    def get(self, name: str) -> SecretSpec | None:
        """Raises Stalled `SecretUnreadable`."""
        return self._owned.get(name) or self._own.get(name) or self._platform.get(name)

    @property
    def names(self) -> frozenset[str]:
        return self._owned.names | self.declared

    @property
    def declared(self) -> frozenset[str]:
        """Return the names of those in manifests."""
        return frozenset(self._own.keys() | self._platform.keys())

    def replaced(self) -> Iterator[str]:
        """Yield warnings about manifests that do not count."""
        for found, place in (
            (self._own, Localizable("in the app's repository")),
            (self._platform, Localizable("in the platform folder")),
        ):
            for name in sorted(self._owned.names & found.keys()):
                told = Localizable(
                    "the Secret {name!r} is set with `prichal secret`, so the one that is declared {place}",
                    name=name,
                    place=place,
                )
                yield Localizable(
                    "{told} does not count: remove it, or the other one with `prichal secret rm`", told=told
                )


def hidden_of(deps: ReconcilerDeps, app: AppName) -> tuple[Secret, ...]:
    """Return the values that must not appear in what people see of an app."""
    declared = deps.catalog.spec.app(app)
    owned = deps.store.secrets.of(app).values
    if declared and declared.preview:
        owned = (*owned, *deps.store.secrets.of(declared.preview.app).values)
    return (*deps.catalog.secret_values(app), *owned)
