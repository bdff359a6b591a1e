"""The catalog: the apps, repositories and Secrets that the platform has now. One per daemon, shared by
its threads; replaced as a whole when the platform folder changes.
"""

from __future__ import annotations

from controller.domain.apps.spec import PlatformAppSpec, PlatformSpec, Registry, RepositorySpec, SecretSpec
from controller.domain.names import AppName
from controller.domain.secret import Secret

Credentials = tuple[tuple[Registry, SecretSpec | None], ...]


class PlatformCatalog:
    def __init__(self, spec: PlatformSpec | None = None) -> None:
        self._spec = spec

    @property
    def spec(self) -> PlatformSpec:
        return self._spec or PlatformSpec()

    @property
    def known(self) -> bool:
        """Return whether the platform folder has been read at all; before that no app may be considered
        removed.
        """
        return self._spec is not None

    def replace(self, spec: PlatformSpec) -> None:
        self._spec = spec  # one reference: readers see the old or the new one, never a mixture

    def secret(self, name: str | None, app: AppName | None) -> SecretSpec | None:
        """Return the app's own Secret of that name, otherwise the platform's."""
        if name is None:
            return None
        return (app and self.spec.secret(name, app)) or self.spec.secret(name, None)

    def repository_secret(self, repository: RepositorySpec, name: str | None) -> SecretSpec | None:
        """Return a Secret of the platform or of the apps in the repository."""
        if name is None:
            return None
        found = (self.secret(name, owner) for owner in (None, *self.spec.apps_of(repository.name)))
        return next((secret for secret in found if secret), None)

    def registries(self, app: PlatformAppSpec) -> Credentials:
        return tuple((registry, self.secret(registry.credentials, app.name)) for registry in app.registries)

    def packages(self, app: PlatformAppSpec) -> Credentials:
        """Return the package registries, from which builds can install."""
        found = app.package_registries
        return tuple((registry, self.secret(registry.credentials, app.name)) for registry in found)

    def secret_values(self, app: AppName) -> tuple[Secret, ...]:
        """Return all values that must not appear in a text about this app."""
        return tuple(value for s in self.spec.secrets if s.app in (None, app) for _, value in s.values)
