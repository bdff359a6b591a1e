"""Images of the Docker engine: nail a reference to content, pull it, build it. Used by `engine` alone.

Credentials come from the app's own registries only, never from a `docker login` of the user that the daemon runs as:
one app must not reach what another one, or the operator, may.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

import docker.errors
import requests.exceptions
import urllib3.exceptions
from docker import APIClient
from docker.auth import resolve_index_name, split_repo_name
from docker.utils import parse_repository_tag

from controller.adapters.docker import context as build_context
from controller.adapters.docker.connection import Connection
from controller.adapters.docker.errors import (
    IMAGE_NOT_FOUND,
    MADE_HERE,
    REGISTRY_UNREACHABLE,
    from_answer,
    translated,
)
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.desired import BuildInput
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.observed import ImageOrigin, ImagePin
from controller.domain.secret import Secret
from controller.domain.spec import BuildImage, ImageSource, Registry, SecretSpec

Registries = tuple[tuple[Registry, SecretSpec | None], ...]
Json = dict[str, Any]

HUB = "docker.io"
#: Seconds for a registry to name the digest of a tag; it is asked in every pass, and one that hangs must not block it.
RESOLVE_TIMEOUT = 15.0
#: Lines of a failed build that go into its error.
BUILD_TAIL = 30
_TIMEOUTS = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)


@dataclass(frozen=True)
class Reference:
    """An image's name taken apart. `repository` as written, `host` and `path` normalised: `demo` is
    docker.io and library/demo."""

    repository: str
    tag: str
    digest: str | None
    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`[host[:port]/]path[:tag][@sha256:…]`, see https://pkg.go.dev/github.com/distribution/reference. Only taken
        apart: the engine judges whether it is valid."""
        named, _, digest = text.partition("@")
        repository, tag = parse_repository_tag(named)
        first, path = split_repo_name(repository)
        host = registry_host(first)
        if host == HUB and "/" not in path:
            path = f"library/{path}"
        return cls(repository, tag or "latest", digest or None, host, path)

    def at(self, digest: str) -> str:
        return f"{self.repository}@{digest}"

    @property
    def tagged(self) -> str:
        return f"{self.repository}:{self.tag}"

    def digests_of(self, image: Json | None) -> list[str]:
        """Digests under which an inspected image came from this very repository."""
        known = (Reference.parse(text) for text in (image or {}).get("RepoDigests") or ())
        return [r.digest for r in known if r.digest and (r.host, r.path) == (self.host, self.path)]


def registry_host(text: str) -> str:
    """Host and port of a registry's URL or of a reference's first segment; Docker Hub's many names are one."""
    host = urlsplit(text if "://" in text else f"//{text}").netloc.lower()
    return HUB if host in ("registry-1.docker.io", "hub.docker.com") else resolve_index_name(host)


def credentials(reference: Reference, registries: Registries) -> dict[str, Secret]:
    """`username` and `password` of the first registry with the reference's host; empty where there is none.

    Stalled `RegistryCredentials` if the Secret lacks one of them."""
    for registry, secret in registries:
        if secret is None or registry_host(registry.url) != reference.host:
            continue
        found = {key: secret.get(key) for key in ("username", "password")}
        missing = [key for key, value in found.items() if not value]
        if missing:
            text = f"Secret {secret.name} of registry {registry.name} lacks {' and '.join(missing)}"
            raise Stalled("RegistryCredentials", f"{text}; a registry needs `username` and `password`")
        return {key: value for key, value in found.items() if value}
    return {}


class Images:
    """`pin`, `pull` and `build` of the port `Engine`."""

    def __init__(
        self,
        connection: Connection,
        settings: DockerSettings,
        instance: str,
        resolve_timeout: float = RESOLVE_TIMEOUT,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._instance = instance
        self._resolve_timeout = resolve_timeout

    # --- pin ---------------------------------------------------------------------------------------------------

    def pin(self, source: ImageSource, tag: str | None, registries: Registries) -> ImagePin:
        if isinstance(source, BuildImage):
            if tag is None:
                raise ValueError("an image to be built needs the tag of its content")
            built = self.inspect(tag)
            # By its id: what is built anew from other files, but comes out the same, replaces nothing.
            return ImagePin(built["Id"] if built else tag, ImageOrigin.BUILD, present=built is not None)
        return self._pin_existing(source.reference, registries)

    def _pin_existing(self, reference: str, registries: Registries) -> ImagePin:
        name = Reference.parse(reference)
        if name.digest:
            pinned = name.at(name.digest)
            return ImagePin(pinned, ImageOrigin.REGISTRY, present=self.inspect(pinned) is not None)
        local = self.inspect(reference)
        here = name.digests_of(local)
        if local and not here:
            return ImagePin(local["Id"], ImageOrigin.LOCAL, present=True)
        self._require_registry(reference, f"cannot resolve image {reference}")
        digest = self._resolve(name, registries, fallback=here[0] if here else None)
        pinned = name.at(digest)
        present = digest in here or self.inspect(pinned) is not None
        return ImagePin(pinned, ImageOrigin.REGISTRY, present)

    def inspect(self, reference: str) -> Json | None:
        """The image as the engine describes it, None if it is not on this host."""
        with translated(f"cannot look up image {reference}"):
            try:
                image: Json = self._connection.client.inspect_image(reference)  # type: ignore[no-untyped-call]
                return image
            except docker.errors.NotFound:
                return None

    def _resolve(self, name: Reference, registries: Registries, fallback: str | None) -> str:
        """The digest that the registry has for the tag now. `fallback`, that of the image on this host, counts when
        the registry cannot be reached or does not have the tag (any more): what runs must survive its registry."""
        try:
            return self._ask_registry(name, registries)
        except (Transient, Stalled) as error:
            if fallback and error.reason in (REGISTRY_UNREACHABLE.reason, IMAGE_NOT_FOUND.reason):
                return fallback
            raise

    def _ask_registry(self, name: Reference, registries: Registries) -> str:
        auth = credentials(name, registries)
        doing = f"cannot resolve image {name.tagged}"
        with translated(doing, tuple(auth.values())):
            try:
                client = self._connection.client_with(self._resolve_timeout)
                answer = client.inspect_distribution(  # type: ignore[no-untyped-call]
                    name.tagged, auth_config=_revealed(auth)
                )
            except _TIMEOUTS as error:
                text = f"{name.host} did not answer within {self._resolve_timeout:.0f} s"
                raise REGISTRY_UNREACHABLE.error(doing, text) from error
            except docker.errors.APIError as error:
                # Docker Hub denies what it does not have; its official images (library/…) are all public.
                official = name.host == HUB and name.path.startswith("library/")
                if official and not auth and error.status_code in (401, 403):
                    raise IMAGE_NOT_FOUND.error(doing, f"neither on this host nor on {HUB}") from error
                raise
        digest: str = answer["Descriptor"]["digest"]
        return digest

    # --- pull --------------------------------------------------------------------------------------------------

    def _require_registry(self, reference: str, doing: str) -> None:
        """Stalled `ImageNotFound` for an image that is named by its id or by the tag of a build: it was made here. A
        registry that was asked for `sha256` would think of something."""
        if reference.startswith(("sha256:", f"{self._instance}.local/")):
            raise MADE_HERE.error(doing, "it was made on this host, and is not there any more")

    def pull(self, reference: str, registries: Registries | None) -> None:
        """`registries` None: with what the person who runs this has given to `docker login`."""
        doing = f"cannot pull image {reference}"
        self._require_registry(reference, doing)
        name = Reference.parse(reference)
        auth = credentials(name, registries or ())
        limit = self._settings.pull_timeout
        with translated(doing, tuple(auth.values())), self._connection.operation(limit) as client:
            try:
                progress = client.pull(
                    name.repository,
                    name.digest or name.tag,
                    stream=True,
                    decode=True,
                    auth_config=None if registries is None else _revealed(auth),
                )
                for message in _within(progress, limit):
                    if "error" in message:
                        raise from_answer(message["error"], doing, secrets=tuple(auth.values()))
            except _TIMEOUTS as error:
                text = f"{doing}: not done within {limit:.0f} s (`docker.pullTimeout`)"
                raise Transient("PullTimeout", text) from error

    # --- build -------------------------------------------------------------------------------------------------

    def build(
        self, tag: str, build: BuildInput, context: Iterable[bytes], log: Callable[[str], None]
    ) -> None:
        doing = f"cannot build image {tag}"
        limit = self._settings.build_timeout
        with TemporaryFile() as spool, translated(doing), self._connection.operation(limit) as client:
            build_context.spool(context, spool, build.source.dockerfile)
            tail: deque[str] = deque(maxlen=BUILD_TAIL)
            try:
                for message in _within(self._start_build(client, tag, build, spool), limit):
                    _read_build(message, tail, log, doing)
            except _TIMEOUTS as error:
                text = f"{doing}: not done within {limit:.0f} s (`docker.buildTimeout`)"
                raise Stalled("BuildTimeout", "\n".join([text, *tail])) from error
            except docker.errors.APIError as error:  # refused before the first step, e.g. no such Dockerfile
                if error.is_server_error() or error.status_code == 400:
                    raise _build_failed(str(error.explanation), tail, doing) from error
                raise

    def _start_build(self, client: APIClient, tag: str, build: BuildInput, context: Any) -> Iterator[Json]:
        """Classic builder: the SDK does not speak BuildKit's protocol, and Engine 20.10 has the classic one.

        `forcerm`: a failed step leaves no container behind. The image carries a label of its own and not the one of
        containers: a container that a person starts from it would inherit that, and count as ours."""
        return client.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            dockerfile=build.source.dockerfile,
            target=build.source.target,
            buildargs=dict(build.source.args),
            labels={labels.BUILT_BY: self._instance},
            rm=True,
            forcerm=True,
            decode=True,
        )

    # --- retention ---------------------------------------------------------------------------------------------

    def prune(self, app: AppName, keep: int, spare: frozenset[str]) -> None:
        client = self._connection.client
        prefix = f"{self._instance}.local/{app}/"
        with translated(f"cannot remove old images of {app}"):
            built = client.images(filters={"label": f"{labels.BUILT_BY}={self._instance}"})
            in_use = spare | {container["ImageID"] for container in client.containers(all=True)}
            newest_first = sorted(built, key=lambda image: -image["Created"])
            seen: Counter[str] = Counter()
            for image in newest_first:
                ours = [tag for tag in image["RepoTags"] or () if tag.startswith(prefix)]
                components = {tag.rpartition(":")[0] for tag in ours}
                seen.update(components)
                if image["Id"] in in_use or any(seen[component] <= keep for component in components):
                    continue
                for tag in ours:
                    _untag(client, tag)


def _untag(client: APIClient, tag: str) -> None:
    """The last tag takes the image along. One that is used all the same, or gone by now, is none of our business."""
    try:
        client.remove_image(tag)
    except (docker.errors.ImageNotFound, docker.errors.APIError) as error:
        if error.status_code not in (404, 409):
            raise


def _read_build(message: Json, tail: deque[str], log: Callable[[str], None], doing: str) -> None:
    if "error" in message:
        raise _build_failed(message["error"], tail, doing)
    for line in message.get("stream", "").splitlines():
        if line.strip():
            tail.append(line)
            log(line)


def _build_failed(text: str, tail: deque[str], doing: str) -> Exception:
    """A base image whose registry does not answer may come later; everything else is the commit's fault."""
    verdict = from_answer(text, doing)
    if isinstance(verdict, Transient) and verdict.reason in (REGISTRY_UNREACHABLE.reason, "EngineDiskFull"):
        return verdict
    return Stalled("BuildFailed", "\n".join([f"{doing}: {text.strip()}", *tail]))


def _within(messages: Iterator[Json], limit: float) -> Iterator[Json]:
    """TimeoutError once the whole took more than `limit` seconds; silence is bounded by the client's own timeout."""
    deadline = time.monotonic() + limit
    for message in messages:
        if time.monotonic() > deadline:
            raise TimeoutError
        yield message


def _revealed(auth: dict[str, Secret]) -> dict[str, str]:
    """As the SDK wants it. Empty is not None, which would mean "take what `docker login` left behind"."""
    return {key: value.reveal() for key, value in auth.items()}
