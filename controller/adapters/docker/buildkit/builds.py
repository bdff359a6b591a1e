"""Runs one build by the BuildKit of the engine. Used by `images`, which judges images and measures the result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import docker.errors
import requests.exceptions
from docker import APIClient
from docker.types.daemon import CancellableStream
from docker.utils.json_stream import json_stream

from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.buildkit.choice import Prepared
from controller.adapters.docker.buildkit.files import FileTree
from controller.adapters.docker.buildkit.limits import DiskWatch, StepLimits
from controller.adapters.docker.buildkit.progress import BuildProgress
from controller.adapters.docker.buildkit.session import CONTEXT, DOCKERFILE, BuildSession
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.dockerignore import NAME as DOCKERIGNORE
from controller.config import DockerSettings
from controller.domain.apps.desired import BuildInput
from controller.domain.names import AppName
from controller.ports import BuildContext

Json = dict[str, Any]

#: A build argument that BuildKit's frontend takes as the first part of the ids of caches.
_CACHE_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
_WORDS = 2000
#: The message that has the id of the image.
IMAGE_BUILT = "moby.image.id"


@dataclass(frozen=True)
class Order:
    """What is to be built: `named` are the labels of the image, `cache` names images on this host."""

    app: AppName
    tag: str
    build: BuildInput
    context: BuildContext
    dockerfile: Prepared
    named: Mapping[str, str]
    cache: tuple[str, ...] = ()


class BuildKit:
    """Of one instance. Raises what the SDK raises."""

    def __init__(self, connection: EngineConnection, settings: DockerSettings, instance: str) -> None:
        self._connection = connection
        self._settings = settings
        self._instance = instance
        self.limits = StepLimits(connection, settings, instance)
        self.cache = BuildCache(connection, settings)

    @property
    def major(self) -> int:
        """Return the major version of the engine."""
        found = str(self._connection.client.version().get("Version", ""))
        first = found.partition(".")[0]
        return int(first) if first.isdecimal() else 0

    @property
    def network(self) -> str:
        """Return what steps can reach: BuildKit cannot use a network of ours, in which the firewall's rules hold."""
        return "default" if self._settings.build_network == "bridge" else "none"

    @contextmanager
    def watched(self, order: Order, doing: str) -> Iterator[DiskWatch | None]:
        """Hold the limits of steps, if there are any, until the end of the block."""
        if not order.dockerfile.runs:
            yield None
            return
        with self.limits.held(doing) as watch:
            yield watch

    @contextmanager
    def started(
        self, client: APIClient, order: Order, spooled: IO[bytes]
    ) -> Iterator[tuple[Iterator[Json], CancellableStream[Json]]]:
        """Yield the engine's messages. Closing the stream from another thread ends the build, as does the end of the
        block. `spooled` is for the context."""
        self.cache.used()
        for chunk in order.context.files:
            spooled.write(chunk)
        spooled.seek(0)
        ignoring = order.context.dockerignore
        folders = {
            CONTEXT: FileTree.of_tar(spooled, {} if ignoring is None else {DOCKERIGNORE: ignoring}),
            DOCKERFILE: FileTree.of_texts({order.build.source.dockerfile: order.dockerfile.content}),
        }
        with ExitStack() as stack:
            version = str(client.api_version)
            session = BuildSession(self._settings.host, version, folders, dict(order.build.secrets))
            try:
                stack.enter_context(session)
            except OSError as error:
                raise requests.exceptions.ConnectionError(str(error)) from error
            url = f"{client.base_url}/v{version}/build"
            answer = client.post(url, params=self._parameters(order, session.id), stream=True)
            stack.callback(answer.close)
            if answer.status_code != 200:
                raise docker.errors.APIError(answer.text, answer, answer.text[:_WORDS])
            messages: Iterator[Json] = json_stream(answer.raw.stream())  # type: ignore[assignment, arg-type]
            yield messages, CancellableStream(messages, answer)

    def _parameters(self, order: Order, session: str) -> dict[str, str]:
        source = order.build.source
        arguments = {**dict(source.args), _CACHE_NAMESPACE: f"{self._instance}/{order.app}"}
        # A host's name is part of what a step is known by in the cache: what one app has made with its secrets must not
        # be found by another one that has the same Dockerfile.
        own = {"extrahosts": f"{order.app}.{self._instance}.invalid:127.0.0.1"} if order.build.secrets else {}
        return {
            "version": "2",
            "remote": "client-session",
            "session": session,
            "t": order.tag,
            "dockerfile": source.dockerfile,
            "target": source.target or "",
            "buildargs": json.dumps(arguments),
            "labels": json.dumps(dict(order.named)),
            "networkmode": self.network,
            **({"cachefrom": json.dumps(order.cache)} if order.cache else {}),
            **own,
        }


def told(progress: BuildProgress, message: Json) -> Iterator[str]:
    """Yield the lines of a message, whichever kind it has."""
    yield from progress.lines(message)
    yield from message.get("stream", "").splitlines()
