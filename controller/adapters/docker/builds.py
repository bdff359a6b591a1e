"""Builds of images, by the classic builder of the Docker engine or by its BuildKit: what a build is given, how it is
watched and ended, and what is left of it. Used by `engine`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any

import docker.errors
import requests
from docker import APIClient
from docker.types.daemon import CancellableStream

from controller.adapters.docker.build_disk import BuildDisk
from controller.adapters.docker.build_errors import (
    BUILD_LINE,
    BUILD_TAIL,
    ParentGone,
    build_failed,
    read_build,
    too_long,
)
from controller.adapters.docker.build_steps import BuildSteps
from controller.adapters.docker.buildkit.builds import IMAGE_BUILT, BuildKit, Order, told
from controller.adapters.docker.buildkit.choice import Builder, choose, needs, prepare, refused_argument
from controller.adapters.docker.buildkit.limits import DiskWatch
from controller.adapters.docker.buildkit.progress import BuildProgress
from controller.adapters.docker.connection import EngineConnection, closing_on_stop
from controller.adapters.docker.context import DOCKERFILE, labelled, spool
from controller.adapters.docker.dockerfile import images_of
from controller.adapters.docker.engine_disk import EngineDisk
from controller.adapters.docker.error_rules import BUILD_OF_AN_APP, translated
from controller.adapters.docker.images import TIMEOUTS, ImageStore, remove, within
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.kept_images import superfluous
from controller.domain.apps.observed import ImageOrigin
from controller.domain.apps.policies import NO_POLICIES, Policies
from controller.domain.errors import Stalled, Superseded, Transient
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.domain.text import excerpt
from controller.ports import BuildContext

#: Labels that mark containers as ours: those of build steps must not inherit them from a base image.
_NOT_OURS = dict.fromkeys((labels.INSTANCE, labels.APP, labels.COMPONENT, labels.KIND, labels.RUN), "")
#: How often a build begins whose parents are removed meanwhile.
_ATTEMPTS = 3
Json = dict[str, Any]


@dataclass(frozen=True)
class BaseImages:
    """Of a build: ids, and the instructions that these images add to it."""

    ids: frozenset[str]
    triggers: tuple[bytes, ...]


class ImageBuilds:
    """`build` of the port `Engine`, and the removal of what builds leave. Thread-safe."""

    def __init__(
        self,
        connection: EngineConnection,
        settings: DockerSettings,
        instance: str,
        images: ImageStore,
        policies: Policies = NO_POLICIES,
    ) -> None:
        self._policies = policies
        self._connection = connection
        self._settings = settings
        self._instance = instance
        self._images = images
        self._lock = threading.Lock()  # of these; held while leftovers are removed
        self._building = 0
        self._by_buildkit = 0
        self._disks: list[tuple[AppName, BuildDisk | DiskWatch]] = []  # of builds under way
        self._left: dict[AppName, frozenset[str]] = {}  # images that failed builds have made
        self._steps = BuildSteps(connection, settings, instance)
        self._buildkit = BuildKit(connection, settings, instance)
        self._engine_disk = EngineDisk(connection)

    def writing(self) -> Mapping[AppName, int]:
        """Return the bytes that builds under way have written so far."""
        with self._lock:
            return {app: disk.used for app, disk in self._disks}

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
            self._images.require_share(tag, doing)
        if self._settings.registry:
            self._images.push(tag)

    def _ordered(self, tag: str, build: BuildInput, context: BuildContext, doing: str) -> Order:
        """Judge what BuildKit is given. Raises Stalled `BuildRefused`, `ImageRefused`."""
        app, secrets = self._images.app_of(tag), [id for id, _ in build.secrets]
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
                    for message in within(messages, limit):
                        if "error" in message:
                            raise build_failed(hidden(self._explained(message["error"], order)), tail, doing)
                        finished = finished or message.get("id") == IMAGE_BUILT
                        for line in filter(str.strip, map(hidden, told(progress, message))):
                            tail.append(excerpt(line, BUILD_LINE))
                            log(line)
            except TIMEOUTS as error:
                raise too_long(doing, limit, tail) from error
            except docker.errors.APIError as error:
                if error.is_server_error() or error.status_code == 400:
                    raise build_failed(str(error.explanation), tail, doing) from error
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
        """An image that the build continues from can be removed meanwhile, by a person or another instance: then it
        begins again."""
        dockerfile = labelled(context.dockerfile, {labels.BUILT_BY: self._instance, **_NOT_OURS})

        def as_written(text: str) -> str:
            return dockerfile.translated(text).replace(DOCKERFILE, build.source.dockerfile)

        with translated(doing), TemporaryFile() as spooled:
            spool(context, dockerfile.content, spooled)
            for left in reversed(range(_ATTEMPTS)):
                spooled.seek(0)
                try:
                    bases = self._check_bases(context.dockerfile, build, doing, self._images.app_of(tag)).ids
                    self._run_classic(tag, build, spooled, bases, log, as_written, doing, stop)
                except ParentGone as error:
                    if not left:
                        raise
                    log(Localizable("{error}; it begins again", error=error.message))
                else:
                    return

    def _run_classic(
        self,
        tag: str,
        build: BuildInput,
        spooled: IO[bytes],
        bases: frozenset[str],
        log: Callable[[str], None],
        as_written: Callable[[str], str],
        doing: str,
        stop: Callable[[], bool],
    ) -> None:
        app, limit = self._images.app_of(tag), self._settings.build_timeout
        cache = self._with_own(self._cache_of(app, build, log), app)
        tail: deque[str] = deque(maxlen=BUILD_TAIL)
        with (
            self._under_way() as network,
            self._steps.bounded(),
            self._measured(app, bases) as disk,
            self._connection.operation(limit) as client,
        ):
            try:
                messages, stream = self._start_build(client, tag, build, spooled, network, cache)
                with self._ended_by(disk, stop, tag, doing), closing_on_stop(stream, _either(disk, stop)):
                    for message in within(messages, limit):
                        disk.note(message.get("stream", ""))
                        read_build(message, tail, log, as_written, doing)
            except TIMEOUTS as error:
                raise too_long(doing, limit, tail) from error
            except docker.errors.APIError as error:  # refused before the first step, e.g. an empty Dockerfile
                if error.is_server_error() or error.status_code == 400:
                    raise build_failed(as_written(str(error.explanation)), tail, doing) from error
                raise

    def _start_build(
        self,
        client: APIClient,
        tag: str,
        build: BuildInput,
        context: IO[bytes],
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

    # --- what a build is given -----------------------------------------------------------------------------------

    def _check_bases(self, dockerfile: bytes, build: BuildInput, doing: str, app: AppName) -> BaseImages:
        """Check the base images, and return them: any app must be allowed to use them, and instructions that they
        bring (`ONBUILD`) must not lead elsewhere. They are pulled first, so that these can be read; as by the
        builder, with the `docker login` of the daemon's user.
        """
        bases, triggers = set(), []
        for reference in images_of(dockerfile, dict(build.source.args)):
            self._require_allowed(reference, doing)
            found = self._images.named(reference, doing)
            if found is None:
                try:
                    self._images.pull(reference, None, app)
                except Stalled as error:
                    raise Stalled(Reason.BUILD_FAILED, joined((doing, error.message), ": ")) from error
                found = self._images.inspect(reference) or {}
            bases.add(str(found.get("Id", "")))
            for trigger in (found.get("Config") or {}).get("OnBuild") or ():
                triggers.append(trigger.encode())
                for other in images_of(trigger.encode(), {}):
                    self._require_allowed(other, doing)
                    self._images.named(other, doing)
        return BaseImages(frozenset(bases), tuple(triggers))

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
                pin = self._images.pin_existing(reference, build.registries)
                if not pin.present:
                    self._images.pull(pin.deploy, build.registries, app)
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
        own = [image for image, apps in self._images.built().items() if app in apps] if cache else []
        return [*cache, *own]

    # --- under way -----------------------------------------------------------------------------------------------

    @contextmanager
    def _measured(self, app: AppName, bases: frozenset[str]) -> Iterator[BuildDisk]:
        """Yield what measures a build of the app. What failed builds have left counts until it is collected."""
        with self._lock:
            earlier = self._left.get(app, frozenset())
        disk = BuildDisk(
            self._connection,
            self._images.layers,
            self._instance,
            self._settings.build_disk,
            bases,
            earlier,
            free=self._engine_disk.free,
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
            remove(self._connection.client, tag)
            raise disk.error(doing)
        # A stream that is closed may end as if it were complete.
        if stop() and self._images.inspect(tag) is None:
            raise Superseded(
                Localizable("{tag}: the build was ended, because there is a newer commit", tag=tag)
            )

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
                self._steps.make_network()
            self._building += 1
        try:
            yield self._steps.network if own else self._settings.build_network
        finally:
            with self._lock:
                self._building -= 1
                if own and not self._building:
                    self._steps.remove_network()

    # --- what is left --------------------------------------------------------------------------------------------

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
            self._steps.collect()
            self._remove_cut_steps(age)
            in_use = {container["ImageID"] for container in client.containers(all=True)}
            for image in superfluous(client.images(filters=ours), in_use, time.time(), age):
                remove(client, image)
            self._left = {app: there for app, left in self._left.items() if (there := self._there(left))}

    def _there(self, images: Collection[str]) -> frozenset[str]:
        return frozenset(image for image in images if self._images.inspect(image) is not None)

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

    def collect_cache(self, age: float) -> None:
        """Keep the cache of BuildKit within its bound. It may take the engine long, and builds may begin meanwhile."""
        with translated(Localizable("cannot remove what is too much in the cache of BuildKit")):
            self._buildkit.cache.collect(age)


def _is_no_step(entry: Json) -> bool:
    """Return whether it is the container of an instruction such as `LABEL`, which the builder never starts."""
    return entry["State"] == "created" and "#(nop)" in entry["Command"]


def _either(disk: BuildDisk | DiskWatch | None, stop: Callable[[], bool]) -> Callable[[], bool]:
    """Return whether a build has to end."""
    return lambda: stop() or (disk is not None and disk.is_full())
