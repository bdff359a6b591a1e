"""The catalog: the apps, repositories and Secrets that the platform has now. One per daemon, shared by
its threads; replaced as a whole when the platform folder changes.
"""

from __future__ import annotations

from controller.domain.apps.spec import PlatformAppSpec, PlatformSpec, Registry, RepositorySpec, SecretSpec
from controller.domain.names import AppName
from controller.domain.secret import Secret

Credentials = tuple[tuple[Registry, SecretSpec | None], ...]


class PlatformCatalog:
    def __init__(self) -> None:
        self._spec: PlatformSpec | None = None

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
        """Passes compare by identity whether something else is declared, so an equal one changes nothing."""
        if spec != self._spec:
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
        apps = (self.spec.app(app) for app in self.spec.apps_of(repository.name))
        found = (self.secret(name, owner) for owner in (None, *(owner_of(app) for app in apps if app)))
        return next((secret for secret in found if secret), None)

    def registries(self, app: PlatformAppSpec) -> Credentials:
        return tuple((registry, self._login(registry.credentials, app)) for registry in app.registries)

    def packages(self, app: PlatformAppSpec) -> Credentials:
        """Return the package registries, from which builds can install."""
        found = app.package_registries
        return tuple((registry, self._login(registry.credentials, app)) for registry in found)

    def _login(self, name: str | None, app: PlatformAppSpec) -> SecretSpec | None:
        """Return a Secret that an app names in the platform folder. A preview has what it was given of its app's."""
        if app.preview is None:
            return self.secret(name, app.name)
        return self.secret(name, app.preview.app if name and app.preview.secrets.has(name) else None)

    def given(self, app: AppName) -> tuple[SecretSpec, ...]:
        """Return the Secrets of the platform folder that belong to an app, or that a preview is given of its app's."""
        declared = self.spec.app(app)
        preview = declared.preview if declared else None
        if preview is None:
            return tuple(secret for secret in self.spec.secrets if secret.app == app)
        found = (secret for secret in self.spec.secrets if secret.app == preview.app)
        return tuple(secret for secret in found if preview.secrets.has(secret.name))

    def secret_values(self, app: AppName) -> tuple[Secret, ...]:
        """Return all values that must not appear in a text about this app."""
        declared = self.spec.app(app)
        owners = (None, app, owner_of(declared) if declared else app)
        return tuple(value for s in self.spec.secrets if s.app in owners for _, value in s.values)


def owner_of(app: PlatformAppSpec) -> AppName:
    """Return the app whose Secrets fetch and deploy: for a preview the one that it belongs to."""
    return app.preview.app if app.preview else app.name
