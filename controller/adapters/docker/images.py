"""Images of the Docker engine: pin a reference to content, pull it, push what was built, remove what is not needed any
more. Used by `engine`, and by `builds`, which adds images.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import docker.errors
import requests
import requests.exceptions
import urllib3.exceptions
from docker import APIClient

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.error_rules import (
    BUILD_OF_AN_APP,
    IMAGE_ID,
    IMAGE_NOT_FOUND,
    MADE_HERE,
    REGISTRY_UNREACHABLE,
    from_answer,
    translated,
)
from controller.adapters.docker.layers import LayerSizes
from controller.adapters.docker.pulled import PulledImages, keys_of
from controller.adapters.docker.references import Reference, Registries, credentials, revealed
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.observed import ImageOrigin, ImagePin, ImageUse
from controller.domain.apps.spec import BuildImage, ImageSource
from controller.domain.errors import Stalled, Transient
from controller.domain.image_names import HUB, familiar
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.units import about_size

Json = dict[str, Any]

#: Seconds for a registry to return the digest of a tag; it is asked in every pass, and a slow one must not
#: block it.
RESOLVE_TIMEOUT = 15.0
TIMEOUTS = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)


class ImageStore:
    """`pin`, `pull` and the removal of images of the port `Engine`."""

    def __init__(
        self,
        connection: EngineConnection,
        settings: DockerSettings,
        instance: str,
        resolve_timeout: float = RESOLVE_TIMEOUT,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._instance = instance
        self._resolve_timeout = resolve_timeout
        self.layers = LayerSizes(connection)
        self._pulled = PulledImages(connection, self.layers, instance, settings.pulled_per_app)
        self._accessible: set[tuple[str, tuple[Secret, ...]]] = set()

    # --- pin -----------------------------------------------------------------------------------------------------

    def pin(self, source: ImageSource, tag: str | None, registries: Registries) -> ImagePin:
        if isinstance(source, BuildImage):
            if tag is None:
                raise ValueError("an image to be built needs the tag of its content")
            return self._pin_build(tag)
        return self.pin_existing(source.reference, registries)

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

    def pin_existing(self, reference: str, registries: Registries) -> ImagePin:
        name = Reference.parse(reference)
        doing = Localizable("cannot use image {reference}", reference=reference)
        if name.digest:
            pinned = name.at(name.digest)
            present = self.named(pinned, doing) is not None
            if present:
                self._require_access(name, registries)
            return ImagePin(pinned, ImageOrigin.REGISTRY, present)
        local = self.named(reference, doing)
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

    def named(self, reference: str, doing: str) -> Json | None:
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
                    auth_config=None if registries is None else revealed(auth),
                )
            except TIMEOUTS as error:
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

    # --- pull and push -------------------------------------------------------------------------------------------

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
                    auth_config=None if registries is None else revealed(auth),
                )
                for message in within(progress, limit):
                    if "error" in message:
                        raise from_answer(message["error"], doing, secrets=tuple(auth.values()))
                    follow(message)
            except TIMEOUTS as error:
                text = Localizable(
                    "{doing}: not done within {limit} s (`docker.pullTimeout`)",
                    doing=doing,
                    limit=round(limit),
                )
                raise Transient(Reason.PULL_TIMEOUT, text) from error

    def push(self, tag: str) -> None:
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
                for message in within(progress, limit):
                    if "error" in message:
                        raise from_answer(message["error"], doing)
        except TIMEOUTS as error:
            text = Localizable(
                "{doing}: not done within {limit} s (`docker.pullTimeout`)", doing=doing, limit=round(limit)
            )
            raise Transient(Reason.PUSH_FAILED, text) from error
        except (Transient, Stalled) as error:
            raise Transient(Reason.PUSH_FAILED, error.message) from error

    # --- retention -----------------------------------------------------------------------------------------------

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
                        remove(client, tag)

    def remove_pulled(self, app: AppName, needed: Mapping[str, AppName]) -> None:
        with translated(Localizable("cannot remove old images of {app}", app=app)):
            self._pulled.forget(app, needed)

    def _within_bound(
        self, wanted: tuple[str, ...], built: list[Json], in_use: Collection[str]
    ) -> frozenset[str]:
        """Return the ids of the first of the wanted images that fit, without their layers that are in use."""
        ids = {key: image["Id"] for image in built for key in keys_of(image)}
        used = [ids.get(name, name) for name in in_use]
        kept: list[str] = []
        for id in filter(None, map(ids.get, wanted)):
            if self.layers.together([*kept, id], but=used) > self._settings.kept_images:
                break
            kept.append(id)
        return frozenset(kept)

    def sizes(self, writing: Mapping[AppName, int]) -> Mapping[AppName, ImageUse]:
        """Return what the images of each app take, and what its builds write. A layer that several images of an app
        share counts once."""
        with translated(Localizable("cannot list the images of apps")):
            built, pulled = self.built(), self._pulled.sizes()
            by_app = defaultdict[AppName, set[str]](set)
            for image, apps in built.items():
                for app in apps:
                    by_app[app].add(image)
            return {
                app: ImageUse(
                    self.layers.together(by_app.get(app, ())), pulled.get(app, 0), writing.get(app, 0)
                )
                for app in by_app.keys() | pulled.keys() | writing.keys()
            }

    def built(self) -> dict[str, set[AppName]]:
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

    def app_of(self, tag: str) -> AppName:
        return AppName(tag.removeprefix(f"{self._instance}.local/").partition("/")[0])

    def require_share(self, tag: str, doing: str) -> None:
        """Remove the built image if it and those in use exceed the share of the app. Raises Stalled
        `ImageTooLarge`.
        """
        client, app = self._connection.client, self.app_of(tag)
        most, built = self._settings.images_per_app, self.inspect(tag)
        if built is None:
            return
        own = {"label": [f"{labels.INSTANCE}={self._instance}", f"{labels.APP}={app}"]}
        ours = {image for image, apps in self.built().items() if app in apps}
        used = ours & {container["ImageID"] for container in client.containers(all=True, filters=own)}
        size = self.layers.together({*used, built["Id"]})
        if size > most:
            remove(client, tag)
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


@contextmanager
def _suppressed(reason: Reason) -> Iterator[None]:
    """Suppress errors with this reason."""
    try:
        yield
    except (Transient, Stalled) as error:
        if error.reason != reason:
            raise


def remove(client: APIClient, image: str) -> None:
    """Remove an image by its tag, the last of which removes the image, or by its id. One that is in use
    stays.
    """
    try:
        client.remove_image(image)
    except (docker.errors.ImageNotFound, docker.errors.APIError) as error:
        if error.status_code not in (404, 409):
            raise


def within(messages: Iterator[Json], limit: float) -> Iterator[Json]:
    """Yield messages; raise TimeoutError after `limit` seconds in all; the client's own timeout limits
    silence.
    """
    deadline = time.monotonic() + limit
    for message in messages:
        if time.monotonic() > deadline:
            raise TimeoutError
        yield message
