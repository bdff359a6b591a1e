"""Names of images: the parts of a reference, and the credentials of the registry that it names. Pure. Used by `images`
and `builds`.

Credentials come only from the app's own registries, never from a `docker login` of the user that the daemon
runs as: an app must not reach what only another one, or the operator, may use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from docker.utils import parse_repository_tag

from controller.domain.apps.spec import Registry, SecretSpec
from controller.domain.errors import Stalled
from controller.domain.image_names import hub_or, split_name
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

Registries = tuple[tuple[Registry, SecretSpec | None], ...]
Json = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """The parts of an image's name. `repository` is as written, `host` and `path` are normalized: `demo` is
    docker.io and library/demo.
    """

    repository: str
    tag: str
    digest: str | None
    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse `[host[:port]/]path[:tag][@sha256:…]`, see
        https://pkg.go.dev/github.com/distribution/reference. The engine decides whether it is valid.
        """
        named, _, digest = text.partition("@")
        repository, tag = parse_repository_tag(named)
        host, path = split_name(repository)
        return cls(repository, tag or "latest", digest or None, host, path)

    def at(self, digest: str) -> str:
        return f"{self.repository}@{digest}"

    @property
    def tagged(self) -> str:
        return f"{self.repository}:{self.tag}"

    def digests_of(self, image: Json | None) -> list[str]:
        """Return the digests under which an image came from this repository."""
        known = (Reference.parse(text) for text in (image or {}).get("RepoDigests") or ())
        return [r.digest for r in known if r.digest and (r.host, r.path) == (self.host, self.path)]


def registry_host(text: str) -> str:
    """Return host and port of a registry's URL or of a reference's first segment; Docker Hub's many names are
    one.
    """
    return hub_or(urlsplit(text if "://" in text else f"//{text}").netloc)


def credentials(reference: Reference, registries: Registries) -> dict[str, Secret]:
    """Return `username` and `password` of the first registry with the reference's host; empty if there is
    none.

    Raises Stalled `RegistryCredentials` if the Secret lacks one of them.
    """
    for registry, secret in registries:
        if secret is None or registry_host(registry.url) != reference.host:
            continue
        found = {key: secret.get(key) for key in ("username", "password")}
        missing = [key for key, value in found.items() if not value]
        if missing:
            text = Localizable(
                "Secret {name} of registry {registry} lacks {missing}",
                name=secret.name,
                registry=registry.name,
                missing=", ".join(missing),
            )
            raise Stalled(
                Reason.REGISTRY_CREDENTIALS,
                Localizable("{text}; a registry needs `username` and `password`", text=text),
            )
        return {key: value for key, value in found.items() if value}
    return {}


def revealed(auth: dict[str, Secret]) -> dict[str, str]:
    """Return what the SDK needs. Empty is not None, which would mean "use `docker login`"."""
    return {key: value.reveal() for key, value in auth.items()}
