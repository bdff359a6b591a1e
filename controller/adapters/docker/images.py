"""Images of the Docker engine: pin a reference to content, pull it, build it. Used only by `engine`.

Credentials come only from the app's own registries, never from a `docker login` of the user that the daemon
runs as: an app must not reach what only another one, or the operator, may use.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

import docker.errors
import requests
import requests.exceptions
import urllib3.exceptions
from docker import APIClient
from docker.types.daemon import CancellableStream
from docker.utils import parse_repository_tag

from controller.adapters.docker.build_disk import BuildDisk
from controller.adapters.docker.buildkit.builds import IMAGE_BUILT, BuildKit, Order, told
from controller.adapters.docker.buildkit.choice import Builder, choose, needs, prepare, refused_argument
from controller.adapters.docker.buildkit.limits import DiskWatch
from controller.adapters.docker.buildkit.progress import BuildProgress
from controller.adapters.docker.connection import EngineConnection, closing_on_stop
from controller.adapters.docker.context import DOCKERFILE, labelled, spool
from controller.adapters.docker.dockerfile import images_of
from controller.adapters.docker.egress import Egress
from controller.adapters.docker.error_rules import (
    BUILD_OF_AN_APP,
    DISK_FULL,
    IMAGE_ID,
    IMAGE_NOT_FOUND,
    MADE_HERE,
    REGISTRY_LIMITED,
    REGISTRY_UNREACHABLE,
    REGISTRY_UNTRUSTED,
    from_answer,
    translated,
)
from controller.adapters.docker.layers import LayerSizes
from controller.adapters.docker.networks import BRIDGE
from controller.adapters.docker.pulled import PulledImages, keys_of
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.kept_images import superfluous
from controller.domain.apps.observed import ImageOrigin, ImagePin, ImageUse
from controller.domain.apps.policies import NO_POLICIES, Policies
from controller.domain.apps.spec import BuildImage, ImageSource, Registry, SecretSpec
from controller.domain.errors import Stalled, Superseded, Transient
from controller.domain.image_names import HUB, familiar, hub_or, split_name
from controller.domain.localizable import Localizable, joined, shortened, stripped
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret, scrub
from controller.domain.text import excerpt
from controller.domain.units import about_size
from controller.ports import BuildContext

log = logging.getLogger(__name__)

#: Labels that mark containers as ours: those of build steps must not inherit them from a base image.
_NOT_OURS = dict.fromkeys((labels.INSTANCE, labels.APP, labels.COMPONENT, labels.KIND, labels.RUN), "")
Registries = tuple[tuple[Registry, SecretSpec | None], ...]
Json = dict[str, Any]

#: Seconds for a registry to return the digest of a tag; it is asked in every pass, and a slow one must not
#: block it.
RESOLVE_TIMEOUT = 15.0
#: Lines of a failed build that go into its error.
BUILD_TAIL = 30
#: Characters of one of them: thirty are fewer than what is kept of a message.
BUILD_LINE = 400
_TIMEOUTS = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)


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


@dataclass(frozen=True)
class BaseImages:
    """Of a build: ids, and the instructions that these images add to it."""

    ids: frozenset[str]
    triggers: tuple[bytes, ...]


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


class ImageStore:
    """`pin`, `pull`, `build` and the removal of images of the port `Engine`."""

    def __init__(
        self,
        connection: EngineConnection,
        settings: DockerSettings,
        instance: str,
        resolve_timeout: float = RESOLVE_TIMEOUT,
        policies: Policies = NO_POLICIES,
    ) -> None:
        self._policies = policies
        self._connection = connection
        self._settings = settings
        self._instance = instance
        # Steps of a build that may reach nothing have `build_network: none`; of others most fetch packages.
        closed = replace(settings, egress="internet") if settings.egress == "none" else settings
        self._egress = Egress(connection, closed, instance)
        self._resolve_timeout = resolve_timeout
        self._lock = threading.Lock()  # of these; held while leftovers are removed
        self._building = 0
        self._by_buildkit = 0
        self._disks: list[tuple[AppName, BuildDisk | DiskWatch]] = []  # of builds under way
        self._left: dict[AppName, frozenset[str]] = {}  # images that failed builds have made
        self._layers = LayerSizes(connection)
        self._buildkit = BuildKit(connection, settings, instance)
        self._pulled = PulledImages(connection, self._layers, instance, settings.pulled_per_app)
        self._accessible: set[tuple[str, tuple[Secret, ...]]] = set()

    # --- pin ---------------------------------------------------------------------------------------------------

    def pin(self, source: ImageSource, tag: str | None, registries: Registries) -> ImagePin:
        if isinstance(source, BuildImage):
            if tag is None:
                raise ValueError("an image to be built needs the tag of its content")
            return self._pin_build(tag)
        return self._pin_existing(source.reference, registries)

    def _pin_build(self, tag: str) -> ImagePin:
        """Pin by the id: a rebuild with the same result replaces nothing. If builds are pushed, pin by the digest, also
        of an image that is no longer on this host.
        """
        built = self.inspect(tag)
        if not self._settings.registry:
            return ImagePin(built["Id"] if built else tag, ImageOrigin.BUILD, present=built is not None)
        name = Reference.parse(self._pushed(tag))
        digest = next(iter(name.digests_of(built)), None)
        if digest is None and built is None:
            with _suppressed(IMAGE_NOT_FOUND.reason):
                digest = self._ask_registry(name, None)
        if digest is None:  # never pushed
            return ImagePin(tag, ImageOrigin.BUILD, present=False)
        pinned = name.at(digest)
        return ImagePin(pinned, ImageOrigin.BUILD, built is not None or self.inspect(pinned) is not None)

    def _pushed(self, tag: str) -> str:
        """Return the name in the registry for builds of the image with the tag of a build."""
        rest = tag.removeprefix(f"{self._instance}.local/")
        return f"{self._settings.registry}/{self._instance}/{rest}"

    def _is_pushed(self, name: Reference) -> bool:
        """Return whether it is the name of a build in the registry for builds."""
        if not self._settings.registry:
            return False
        top = Reference.parse(f"{self._settings.registry}/{self._instance}/x")
        return name.host == top.host and name.path.startswith(top.path.removesuffix("x"))

    def _pin_existing(self, reference: str, registries: Registries) -> ImagePin:
        name = Reference.parse(reference)
        doing = Localizable("cannot use image {reference}", reference=reference)
        if name.digest:
            pinned = name.at(name.digest)
            present = self._named(pinned, doing) is not None
            if present:
                self._require_access(name, registries)
            return ImagePin(pinned, ImageOrigin.REGISTRY, present)
        local = self._named(reference, doing)
        here = name.digests_of(local)
        if local and not here:
            return ImagePin(local["Id"], ImageOrigin.LOCAL, present=True)
        self._require_registry(
            reference, Localizable("cannot resolve image {reference}", reference=reference)
        )
        digest = self._resolve(name, registries, fallback=here[0] if here else None)
        pinned = name.at(digest)
        present = digest in here or self.inspect(pinned) is not None
        return ImagePin(pinned, ImageOrigin.REGISTRY, present)

    def _named(self, reference: str, doing: str) -> Json | None:
        """Return the image on this host with this name. The engine also accepts ids and prefixes of them,
        which would give access to builds of other apps: Raises Stalled `ImageRefused` for these, and for tags
        of builds.
        """
        name = Reference.parse(reference)
        if reference.startswith(f"{self._instance}.local/") or self._is_pushed(name):
            raise BUILD_OF_AN_APP.error(doing, Localizable("images of builds cannot be named"))
        found = self.inspect(reference)
        if found is None:
            return None
        by_label = ((found.get("Config") or {}).get("Labels") or {}).get(labels.BUILT_BY)
        if by_label and name.host.endswith(".local"):
            raise BUILD_OF_AN_APP.error(
                doing, Localizable("it is a build of another controller on this host")
            )
        tags = (Reference.parse(tag) for tag in found.get("RepoTags") or ())
        tagged = any((t.host, t.path, t.tag) == (name.host, name.path, name.tag) for t in tags)
        if name.digest in name.digests_of(found) if name.digest else tagged:
            return found
        raise IMAGE_ID.error(doing, Localizable("it is a prefix of the id of an image on this host"))

    def _require_access(self, name: Reference, registries: Registries) -> None:
        """Check that this app may use an image on this host: its registry is asked, once with the same
        credentials. If that does not answer, or no longer has the image, the image on this host is used.
        """
        key = (name.at(name.digest or ""), tuple(credentials(name, registries).values()))
        if key in self._accessible:
            return
        try:
            self._ask_registry(name, registries)
        except (Transient, Stalled) as error:
            if error.reason not in (REGISTRY_UNREACHABLE.reason, IMAGE_NOT_FOUND.reason):
                raise
            return
        self._accessible.add(key)

    def inspect(self, reference: str) -> Json | None:
        """Return the image as described by the engine; None if it is not on this host."""
        with translated(Localizable("cannot look up image {reference}", reference=reference)):
            try:
                image: Json = self._connection.client.inspect_image(reference)  # type: ignore[no-untyped-call]
                return image
            except docker.errors.NotFound:
                return None

    def _resolve(self, name: Reference, registries: Registries, fallback: str | None) -> str:
        """Return the digest that the registry has for the tag now, or `fallback`, that of the image on this
        host, if the registry does not answer or does not have the tag: services must survive their registry.
        """
        try:
            return self._ask_registry(name, registries)
        except (Transient, Stalled) as error:
            if fallback and error.reason in (REGISTRY_UNREACHABLE.reason, IMAGE_NOT_FOUND.reason):
                return fallback
            raise

    def _ask_registry(self, name: Reference, registries: Registries | None) -> str:
        """Return a digest. `registries` None uses the `docker login` of the daemon's user."""
        auth = credentials(name, registries or ())
        doing = Localizable("cannot resolve image {tagged}", tagged=name.tagged)
        with translated(doing, tuple(auth.values())):
            try:
                client = self._connection.client_with(self._resolve_timeout)
                answer = client.inspect_distribution(  # type: ignore[no-untyped-call]
                    name.at(name.digest) if name.digest else name.tagged,
                    auth_config=None if registries is None else _revealed(auth),
                )
            except _TIMEOUTS as error:
                text = Localizable(
                    "{host} did not answer within {limit} s",
                    host=name.host,
                    limit=round(self._resolve_timeout),
                )
                raise REGISTRY_UNREACHABLE.error(doing, text) from error
            except docker.errors.APIError as error:
                # Docker Hub denies access to what it does not have; its official images (library/…) are all
                # public.
                official = name.host == HUB and name.path.startswith("library/")
                if official and not auth and error.status_code in (401, 403):
                    raise IMAGE_NOT_FOUND.error(
                        doing, Localizable("it is neither on this host nor on {hub}", hub=HUB)
                    ) from error
                raise
        digest: str = answer["Descriptor"]["digest"]
        return digest

    # --- pull --------------------------------------------------------------------------------------------------

    def _require_registry(self, reference: str, doing: str) -> None:
        """Raise Stalled `ImageNotFound` for an image named by its id or by the tag of a build: it was made
        here, and a registry would misunderstand `sha256`.
        """
        if reference.startswith(("sha256:", f"{self._instance}.local/")):
            raise MADE_HERE.error(doing, Localizable("it was made on this host, but was removed"))

    def pull(self, reference: str, registries: Registries | None, app: AppName | None = None) -> None:
        """Pull an image, for an app within its share. `registries` None uses the `docker login` of the person who runs
        this, as for builds that were pushed.
        """
        doing = Localizable("cannot pull image {reference}", reference=reference)
        self._require_registry(reference, doing)
        if self._is_pushed(Reference.parse(reference)):
            registries = None
        if app is None:
            self._pull(reference, registries, doing, lambda message: None)
            return
        with translated(doing):
            incoming = self._pulled.begin(app, doing)
            try:
                self._pull(reference, registries, doing, partial(self._pulled.follow, incoming))
                if (image := self.inspect(reference)) is not None:
                    self._pulled.keep(incoming, image["Id"])
            finally:
                self._pulled.end(incoming)

    def _pull(
        self, reference: str, registries: Registries | None, doing: str, follow: Callable[[Json], None]
    ) -> None:
        """`follow` may raise, which ends the pull: the engine stops when the connection is closed."""
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
                    follow(message)
            except _TIMEOUTS as error:
                text = Localizable(
                    "{doing}: not done within {limit} s (`docker.pullTimeout`)",
                    doing=doing,
                    limit=round(limit),
                )
                raise Transient(Reason.PULL_TIMEOUT, text) from error

    # --- build -------------------------------------------------------------------------------------------------

    def build(
        self,
        tag: str,
        build: BuildInput,
        context: BuildContext,
        log: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        doing = Localizable("cannot build image {tag}", tag=tag)
        needed = needs(context.dockerfile)
        if choose(self._settings.builder, self._settings.build_network, needed) is Builder.BUILDKIT:
            order = self._ordered(tag, build, context, doing)
            order = replace(order, cache=self._cache_of(order.app, build, log))
            self._build_by_buildkit(order, log, doing, stop)
        else:
            self._build_classic(tag, build, context, log, doing, stop)
        with translated(doing):
            self._require_share(tag, doing)
        if self._settings.registry:
            self._push(tag)

    def _ordered(self, tag: str, build: BuildInput, context: BuildContext, doing: str) -> Order:
        """Judge what BuildKit is given. Raises Stalled `BuildRefused`, `ImageRefused`."""
        app, secrets = self._app_of(tag), [id for id, _ in build.secrets]
        if (name := refused_argument([name for name, _ in build.source.args])) is not None:
            raise Stalled(
                Reason.BUILD_REFUSED,
                Localizable(
                    "{doing}: the build argument {name} would change BuildKit itself", doing=doing, name=name
                ),
            )
        dockerfile = prepare(context.dockerfile, self._buildkit.major, secrets)
        bases = self._check_bases(dockerfile.judged, build, doing, app)
        triggers = [prepare(trigger, self._buildkit.major, secrets) for trigger in bases.triggers]
        runs = dockerfile.runs or any(trigger.runs for trigger in triggers)
        named = {labels.BUILT_BY: self._instance, **_NOT_OURS}
        return Order(app, tag, build, context, replace(dockerfile, runs=runs), named)

    def _build_by_buildkit(
        self, order: Order, log: Callable[[str], None], doing: str, stop: Callable[[], bool]
    ) -> None:
        limit, tail, progress = self._settings.build_timeout, deque[str](maxlen=BUILD_TAIL), BuildProgress()
        finished = False
        hidden = partial(scrub, secrets=tuple(value for _, value in order.build.secrets))
        with (
            translated(doing),
            self._counted(),
            TemporaryFile() as spooled,
            self._buildkit.watched(order, doing) as disk,
            self._measured_by(order.app, disk),
            self._connection.operation(limit) as client,
        ):
            try:
                with (
                    self._buildkit.started(client, order, spooled) as (messages, stream),
                    self._ended_by(disk, stop, order.tag, doing),
                    closing_on_stop(stream, _either(disk, stop)),
                ):
                    for message in _within(messages, limit):
                        if "error" in message:
                            raise _build_failed(hidden(self._explained(message["error"], order)), tail, doing)
                        finished = finished or message.get("id") == IMAGE_BUILT
                        for line in filter(str.strip, map(hidden, told(progress, message))):
                            tail.append(excerpt(line, BUILD_LINE))
                            log(line)
            except _TIMEOUTS as error:
                raise _too_long(doing, limit, tail) from error
            except docker.errors.APIError as error:
                if error.is_server_error() or error.status_code == 400:
                    raise _build_failed(str(error.explanation), tail, doing) from error
                raise
        if not finished:
            raise Transient(
                Reason.ENGINE_UNREACHABLE,
                Localizable("{doing}: the engine ended the connection before its end", doing=doing),
            )

    def _explained(self, text: str, order: Order) -> str:
        """Return an error of the builder, and what a step that failed may have missed."""
        if "exit code" in text and self._settings.build_network == "own":
            how = Localizable("set docker.buildNetwork to bridge if they need one")
            return joined(
                (text, Localizable("(steps that BuildKit builds have no network: {how})", how=how)), "\n"
            )
        return text

    def _build_classic(
        self,
        tag: str,
        build: BuildInput,
        context: BuildContext,
        log: Callable[[str], None],
        doing: str,
        stop: Callable[[], bool],
    ) -> None:
        app, limit = self._app_of(tag), self._settings.build_timeout
        bases = self._check_bases(context.dockerfile, build, doing, app).ids
        cache = self._with_own(self._cache_of(app, build, log), app)
        dockerfile = labelled(context.dockerfile, {labels.BUILT_BY: self._instance, **_NOT_OURS})

        def as_written(text: str) -> str:
            return dockerfile.translated(text).replace(DOCKERFILE, build.source.dockerfile)

        with (
            translated(doing),
            self._under_way() as network,
            TemporaryFile() as spooled,
            self._bounded_steps(),
            self._measured(app, bases) as disk,
            self._connection.operation(limit) as client,
        ):
            spool(context, dockerfile.content, spooled)
            tail: deque[str] = deque(maxlen=BUILD_TAIL)
            try:
                messages, stream = self._start_build(client, tag, build, spooled, network, cache)
                with self._ended_by(disk, stop, tag, doing), closing_on_stop(stream, _either(disk, stop)):
                    for message in _within(messages, limit):
                        disk.note(message.get("stream", ""))
                        _read_build(message, tail, log, as_written, doing)
            except _TIMEOUTS as error:
                raise _too_long(doing, limit, tail) from error
            except docker.errors.APIError as error:  # refused before the first step, e.g. an empty Dockerfile
                if error.is_server_error() or error.status_code == 400:
                    raise _build_failed(as_written(str(error.explanation)), tail, doing) from error
                raise

    def _app_of(self, tag: str) -> AppName:
        return AppName(tag.removeprefix(f"{self._instance}.local/").partition("/")[0])

    @contextmanager
    def _measured(self, app: AppName, bases: frozenset[str]) -> Iterator[BuildDisk]:
        """Yield what measures a build of the app. What failed builds have left counts until it is collected."""
        with self._lock:
            earlier = self._left.get(app, frozenset())
        disk = BuildDisk(
            self._connection, self._layers, self._instance, self._settings.build_disk, bases, earlier
        )
        with self._lock:
            self._disks.append((app, disk))
        try:
            yield disk
        except BaseException:
            with self._lock:
                self._left[app] = self._left.get(app, frozenset()) | disk.images
            raise
        finally:
            with self._lock:
                self._disks.remove((app, disk))

    @contextmanager
    def _measured_by(self, app: AppName, disk: DiskWatch | None) -> Iterator[None]:
        """Count what a build by BuildKit writes as the app's."""
        if disk is None:
            yield
            return
        with self._lock:
            self._disks.append((app, disk))
        try:
            yield
        finally:
            with self._lock:
                self._disks.remove((app, disk))

    @contextmanager
    def _ended_by(
        self, disk: BuildDisk | DiskWatch | None, stop: Callable[[], bool], tag: str, doing: str
    ) -> Iterator[None]:
        """Tell why a build was ended. Raises Stalled or Transient `BuildTooLarge`, and Superseded."""
        try:
            yield
        except Exception as error:
            if disk and disk.excess:
                raise disk.error(doing) from error
            if stop():
                raise Superseded(
                    Localizable("{tag}: the build was ended, because there is a newer commit", tag=tag)
                ) from error
            raise
        if disk and disk.excess:  # the last look was after the last message
            _remove(self._connection.client, tag)
            raise disk.error(doing)
        if stop() and self.inspect(tag) is None:  # a stream that is closed may end as if it were complete
            raise Superseded(
                Localizable("{tag}: the build was ended, because there is a newer commit", tag=tag)
            )

    def _push(self, tag: str) -> None:
        """Push a build, with the `docker login` of the daemon's user. Raises Transient `PushFailed` whatever the
        cause: no commit can correct it, and the next attempt finds the image in the cache.
        """
        name = Reference.parse(self._pushed(tag))
        doing = Localizable("cannot push image {tagged}", tagged=name.tagged)
        limit = self._settings.pull_timeout
        try:
            with translated(doing), self._connection.operation(limit) as client:
                client.tag(tag, name.repository, name.tag)
                progress = client.push(name.repository, name.tag, stream=True, decode=True)
                for message in _within(progress, limit):
                    if "error" in message:
                        raise from_answer(message["error"], doing)
        except _TIMEOUTS as error:
            text = Localizable(
                "{doing}: not done within {limit} s (`docker.pullTimeout`)", doing=doing, limit=round(limit)
            )
            raise Transient(Reason.PUSH_FAILED, text) from error
        except (Transient, Stalled) as error:
            raise Transient(Reason.PUSH_FAILED, error.message) from error

    def _check_bases(self, dockerfile: bytes, build: BuildInput, doing: str, app: AppName) -> BaseImages:
        """Check the base images, and return them: any app must be allowed to use them, and instructions that they
        bring (`ONBUILD`) must not lead elsewhere. They are pulled first, so that these can be read; as by the
        builder, with the `docker login` of the daemon's user.
        """
        bases, triggers = set(), []
        for reference in images_of(dockerfile, dict(build.source.args)):
            self._require_allowed(reference, doing)
            found = self._named(reference, doing)
            if found is None:
                try:
                    self.pull(reference, None, app)
                except Stalled as error:
                    raise Stalled(Reason.BUILD_FAILED, joined((doing, error.message), ": ")) from error
                found = self.inspect(reference) or {}
            bases.add(str(found.get("Id", "")))
            for trigger in (found.get("Config") or {}).get("OnBuild") or ():
                triggers.append(trigger.encode())
                for other in images_of(trigger.encode(), {}):
                    self._require_allowed(other, doing)
                    self._named(other, doing)
        return BaseImages(frozenset(bases), tuple(triggers))

    def _cache_of(self, app: AppName, build: BuildInput, log: Callable[[str], None]) -> tuple[str, ...]:
        """Return the images whose layers this build may use as cache, by digest; they are on this host then. One that
        cannot be had makes a build slower, not different, so the log has the error. Raises Stalled `ImageRefused` for
        an id and for a build of an app.
        """
        found: list[str] = []
        for reference in build.source.cache_from:
            if not self._policies.allows_cache(reference):
                log(
                    Localizable(
                        "{reference} is not used as cache: policies.cacheImages of the configuration does not "
                        "name it",
                        reference=reference,
                    )
                )
                continue
            try:
                pin = self._pin_existing(reference, build.registries)
                if not pin.present:
                    self.pull(pin.deploy, build.registries, app)
            except (Stalled, Transient) as error:
                if error.reason == BUILD_OF_AN_APP.reason:
                    raise
                log(
                    Localizable(
                        "{reference} is not used as cache: {message}",
                        reference=reference,
                        message=error.message,
                    )
                )
                continue
            # BuildKit finds images by name alone.
            found.append(reference if pin.origin is ImageOrigin.LOCAL else pin.deploy)
            log(Localizable("layers of {image} are used as cache", image=found[-1]))
        return tuple(found)

    def _with_own(self, cache: tuple[str, ...], app: AppName) -> list[str]:
        """Return the images to which the classic builder is limited: one that is given some as cache looks at no steps
        of other builds, so the app's own are added."""
        own = [image for image, apps in self._built().items() if app in apps] if cache else []
        return [*cache, *own]

    def _require_allowed(self, reference: str, doing: str) -> None:
        """Raise Stalled `BuildFailed` if the operator lets no build begin with this image."""
        if not self._policies.allows_image(reference):
            sources = self._policies.sources
            told = Localizable(
                "{doing}: this platform takes no image {reference!r}: it must come from {sources}",
                doing=doing,
                reference=reference,
                sources=sources,
            )
            raise Stalled(Reason.BUILD_FAILED, told)

    def _start_build(
        self,
        client: APIClient,
        tag: str,
        build: BuildInput,
        context: Any,
        network: str,
        cache: list[str],
    ) -> tuple[Iterator[Json], CancellableStream[Json]]:
        """Classic builder: the SDK does not speak BuildKit's protocol, and Engine 20.10 has the classic one.

        `forcerm`: a failed step leaves no container behind. The image carries a label of its own and not the one of
        containers: a container that a person starts from it would inherit that, and count as ours. The classic builder
        takes no capabilities away, see docs/reference/containers.md. Closing the stream from another thread ends the
        build: reading the messages then raises or ends."""
        settings = self._settings
        quota = {"cpuperiod": "100000", "cpuquota": str(round(settings.build_cpus * 100_000))}
        client.params = quota  # which the SDK does not know of
        answers: list[requests.Response] = []
        client.hooks["response"].append(lambda answer, **_: answers.append(answer))
        messages = client.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            dockerfile=DOCKERFILE,
            target=build.source.target,
            buildargs=dict(build.source.args),
            rm=True,
            forcerm=True,
            decode=True,
            container_limits={"memory": settings.build_memory, "memswap": settings.build_memory},
            network_mode=network,
            cache_from=cache or None,
        )
        return messages, CancellableStream(messages, answers[-1])

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Keep leftovers from being collected during a build that needs no network."""
        with self._lock:
            self._by_buildkit += 1
        try:
            yield
        finally:
            with self._lock:
                self._by_buildkit -= 1

    @contextmanager
    def _under_way(self) -> Iterator[str]:
        """Yield the network for the steps of one more build. It exists only while something is built, since
        Docker has few subnets.
        """
        own = self._settings.build_network == "own"
        with self._lock:
            if own and not self._building:
                self._make_network()
            self._building += 1
        try:
            yield self._network if own else self._settings.build_network
        finally:
            with self._lock:
                self._building -= 1
                if own and not self._building:
                    self._remove_network()

    @property
    def _network(self) -> str:
        return f"{self._instance}.builds"

    def _make_network(self) -> None:
        """Create a network apart from the apps', whose containers are apart from each other: modules build
        side by side.
        """
        self._egress.hold()
        options = {"com.docker.network.bridge.enable_icc": "false"}
        if bridge := self._egress.bridge(self._network):
            options[BRIDGE] = bridge
        try:
            self._connection.client.create_network(
                self._network,
                driver="bridge",
                options=options,
                labels={labels.BUILT_BY: self._instance},
                check_duplicate=True,
            )
        except docker.errors.APIError as error:
            if error.status_code != 409:  # left by a killed one
                raise

    def _remove_network(self) -> None:
        """Remove the network; if that fails, the next build or `collect` does it."""
        with suppress(docker.errors.DockerException, requests.exceptions.RequestException):
            self._connection.client.remove_network(self._network)

    @contextmanager
    def _bounded_steps(self) -> Iterator[None]:
        """Limit the number of processes in each step's container once it is created, since the builder has no
        option for it. A step that creates processes at once has some milliseconds before.
        """
        client, ended = self._connection.client_with(None), threading.Event()
        ours = {"type": "container", "event": "create", "label": f"{labels.BUILT_BY}={self._instance}"}
        stream = client.events(since=datetime.now(UTC), filters=ours, decode=True)

        def bound() -> None:
            with closing_on_stop(stream, ended.is_set), suppress(docker.errors.DockerException, OSError):
                for event in stream:
                    self._limit_processes(event["Actor"]["ID"])

        watching = threading.Thread(target=bound, name="build-steps", daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()

    def _limit_processes(self, container: str) -> None:
        client = self._connection.client
        url = f"{client.base_url}/v{client.api_version}/containers/{container}/update"
        answer = client.post(
            url, json={"PidsLimit": self._settings.build_pids}, timeout=self._connection.timeout
        )
        if answer.status_code not in (200, 404, 409):
            log.warning("could not limit the processes of a build step: %s", answer.text[:200])

    # --- retention ---------------------------------------------------------------------------------------------

    def prune(self, app: AppName, keep: int, spare: frozenset[str], earlier: tuple[str, ...]) -> None:
        client = self._connection.client
        spare, earlier = frozenset(map(familiar, spare)), tuple(map(familiar, earlier))
        local = f"{self._instance}.local/{app}/"
        prefixes = (local, self._pushed(local)) if self._settings.registry else (local,)
        with translated(Localizable("cannot remove old images of {app}", app=app)):
            built = client.images(filters={"label": f"{labels.BUILT_BY}={self._instance}"})
            # Those of the app only: an image that is used otherwise may have a tag of another app, which
            # keeps it.
            own = {"label": [f"{labels.INSTANCE}={self._instance}", f"{labels.APP}={app}"]}
            in_use = spare | {c["ImageID"] for c in client.containers(all=True, filters=own)}
            in_use |= self._within_bound(earlier, built, in_use)
            newest_first = sorted(built, key=lambda image: -image["Created"])
            seen = 0
            for image in newest_first:
                ours = [tag for tag in image["RepoTags"] or () if tag.startswith(prefixes)]
                seen += bool(ours)
                if seen > keep and in_use.isdisjoint(keys_of(image)):
                    for tag in ours:
                        _remove(client, tag)

    def remove_pulled(self, app: AppName, spare: frozenset[str]) -> None:
        with translated(Localizable("cannot remove old images of {app}", app=app)):
            self._pulled.forget(app, spare)

    def _within_bound(
        self, wanted: tuple[str, ...], built: list[Json], in_use: Collection[str]
    ) -> frozenset[str]:
        """Return the ids of the first of the wanted images that fit, without their layers that are in use."""
        ids = {key: image["Id"] for image in built for key in keys_of(image)}
        used = [ids.get(name, name) for name in in_use]
        kept: list[str] = []
        for id in filter(None, map(ids.get, wanted)):
            if self._layers.together([*kept, id], but=used) > self._settings.kept_images:
                break
            kept.append(id)
        return frozenset(kept)

    def sizes(self) -> Mapping[AppName, ImageUse]:
        """Return what the images of each app take. A layer that several images of an app share counts once."""
        with translated(Localizable("cannot list the images of apps")):
            built, pulled = self._built(), self._pulled.sizes()
            by_app = defaultdict[AppName, set[str]](set)
            for image, apps in built.items():
                for app in apps:
                    by_app[app].add(image)
            with self._lock:
                writing = {app: disk.used for app, disk in self._disks}
            return {
                app: ImageUse(
                    self._layers.together(by_app.get(app, ())), pulled.get(app, 0), writing.get(app, 0)
                )
                for app in by_app.keys() | pulled.keys() | writing.keys()
            }

    def _built(self) -> dict[str, set[AppName]]:
        """Apps by image id."""
        prefix = f"{self._instance}.local/"
        images = self._connection.client.images(filters={"label": f"{labels.BUILT_BY}={self._instance}"})
        return {
            image["Id"]: {
                AppName(tag.removeprefix(prefix).partition("/")[0])
                for tag in image["RepoTags"] or ()
                if tag.startswith(prefix)
            }
            for image in images
        }

    def _require_share(self, tag: str, doing: str) -> None:
        """Remove the built image if it and those in use exceed the share of the app. Raises Stalled
        `ImageTooLarge`.
        """
        client, app = self._connection.client, self._app_of(tag)
        most, built = self._settings.images_per_app, self.inspect(tag)
        if built is None:
            return
        own = {"label": [f"{labels.INSTANCE}={self._instance}", f"{labels.APP}={app}"]}
        ours = {image for image, apps in self._built().items() if app in apps}
        used = ours & {container["ImageID"] for container in client.containers(all=True, filters=own)}
        size = self._layers.together({*used, built["Id"]})
        if size > most:
            _remove(client, tag)
            raise Stalled(
                Reason.IMAGE_TOO_LARGE,
                Localizable(
                    "{doing}: with those in use, the images of its app would take {size}, and may take "
                    "{most} (docker.imagesPerApp); this one has {built}",
                    doing=doing,
                    size=about_size(size),
                    most=about_size(most),
                    built=about_size(int(built["Size"])),
                ),
            )

    def _there(self, images: Collection[str]) -> frozenset[str]:
        return frozenset(image for image in images if self.inspect(image) is not None)

    def _remove_cut_steps(self, age: float) -> None:
        """Remove containers of instructions that run nothing, from builds interrupted between creating and
        removing them.
        """
        client = self._connection.client
        ours = {"label": f"{labels.BUILT_BY}={self._instance}", "status": "created"}
        for entry in client.containers(all=True, filters=ours):
            if _is_no_step(entry) and entry["Created"] <= time.time() - age:
                with suppress(docker.errors.NotFound):
                    client.remove_container(entry["Id"], force=True)

    def collect(self, age: float) -> None:
        """Remove steps of failed or interrupted builds: untagged images from which nothing is made, those that are old
        or too many. Removing one also removes the steps before it. Nothing is removed during a build, which may
        continue from any of them.
        """
        ours = {"label": f"{labels.BUILT_BY}={self._instance}", "dangling": True}
        with self._lock, translated(Localizable("cannot remove leftovers of builds")):
            if self._building or self._by_buildkit:
                return
            client = self._connection.client
            self._buildkit.limits.collect()
            if any(network["Name"] == self._network for network in client.networks(names=[self._network])):
                self._remove_network()
            self._remove_cut_steps(age)
            in_use = {container["ImageID"] for container in client.containers(all=True)}
            for image in superfluous(client.images(filters=ours), in_use, time.time(), age):
                _remove(client, image)
            self._left = {app: there for app, left in self._left.items() if (there := self._there(left))}

    def collect_cache(self, age: float) -> None:
        """Keep the cache of BuildKit within its bound. It may take the engine long, and builds may begin meanwhile."""
        with translated(Localizable("cannot remove what is too much in the cache of BuildKit")):
            self._buildkit.cache.collect(age)


@contextmanager
def _suppressed(reason: Reason) -> Iterator[None]:
    """Suppress errors with this reason."""
    try:
        yield
    except (Transient, Stalled) as error:
        if error.reason != reason:
            raise


def _is_no_step(entry: Json) -> bool:
    """Return whether it is the container of an instruction such as `LABEL`, which the builder never starts."""
    return entry["State"] == "created" and "#(nop)" in entry["Command"]


def _remove(client: APIClient, image: str) -> None:
    """Remove an image by its tag, the last of which removes the image, or by its id. One that is in use
    stays.
    """
    try:
        client.remove_image(image)
    except (docker.errors.ImageNotFound, docker.errors.APIError) as error:
        if error.status_code not in (404, 409):
            raise


def _read_build(
    message: Json, tail: deque[str], log: Callable[[str], None], told: Callable[[str], str], doing: str
) -> None:
    if "error" in message:
        raise _build_failed(told(message["error"]), tail, doing)
    for line in told(message.get("stream", "")).splitlines():
        if line.strip():
            tail.append(excerpt(line, BUILD_LINE))
            log(line)


def _either(disk: BuildDisk | DiskWatch | None, stop: Callable[[], bool]) -> Callable[[], bool]:
    """Return whether a build has to end."""
    return lambda: stop() or (disk is not None and disk.is_full())


def _too_long(doing: str, limit: float, tail: deque[str]) -> Stalled:
    text = Localizable(
        "{doing}: not done within {limit} s (`docker.buildTimeout`)", doing=doing, limit=round(limit)
    )
    return Stalled(Reason.BUILD_TIMEOUT, "\n".join([text, *tail]))


def _build_failed(text: str, tail: deque[str], doing: str) -> Exception:
    """Return the error. A registry of a base image may answer later; everything else is an error in the
    commit.
    """
    if _PARENT_GONE in text:
        return Transient(
            Reason.ENGINE_CONFLICT, Localizable("{doing}: its base image was removed meanwhile", doing=doing)
        )
    if _SESSION_LOST in text and "exit code" not in text:  # else the words may be those of a step
        return Transient(
            Reason.ENGINE_UNREACHABLE,
            Localizable("{doing}: the engine has lost the session of the build", doing=doing),
        )
    verdict = from_answer(text, doing)
    if isinstance(verdict, Transient) and verdict.reason in _LATER:
        return verdict
    return Stalled(
        Reason.BUILD_FAILED,
        joined([joined((doing, shortened(stripped(text), 8 * BUILD_LINE)), ": "), *tail], "\n"),
    )


#: Of the classic builder, when an image of its cache is removed while it builds.
_PARENT_GONE = "failed to set parent"
#: Of BuildKit, if the connection on which it asks for files and secrets has ended.
_SESSION_LOST = "no active session"
#: Reasons of a failed build that may get better without another commit.
_LATER = {v.reason for v in (REGISTRY_UNREACHABLE, REGISTRY_LIMITED, REGISTRY_UNTRUSTED, DISK_FULL)}


def _within(messages: Iterator[Json], limit: float) -> Iterator[Json]:
    """Yield messages; raise TimeoutError after `limit` seconds in all; the client's own timeout limits
    silence.
    """
    deadline = time.monotonic() + limit
    for message in messages:
        if time.monotonic() > deadline:
            raise TimeoutError
        yield message


def _revealed(auth: dict[str, Secret]) -> dict[str, str]:
    """Return what the SDK needs. Empty is not None, which would mean "use `docker login`"."""
    return {key: value.reveal() for key, value in auth.items()}
