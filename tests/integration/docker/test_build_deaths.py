"""A daemon dies before any call by which a build changes something on the engine, with both builders: what it
has left is collected, and the next daemon builds the image.

Dying after a call is dying before the next one: the engine has done the same. Deaths while the engine builds, by
SIGKILL, are in `test_build` and `test_image_ls`.
"""

from __future__ import annotations

import fcntl
import itertools
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import docker
import pytest

from controller.adapters.docker.builds import ImageBuilds
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.images import ImageStore
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage
from controller.domain.names import AppName
from tests.integration.docker.test_buildkit import cache_locked
from tests.support.engines import BASE_IMAGE, context_of
from tests.support.specs import make
from tests.support.waiting import wait_for

APP = AppName("app")
#: Calls that change nothing: between two of them nothing is different.
READS = frozenset(
    [
        "images",
        "containers",
        "networks",
        "inspect_image",
        "inspect_container",
        "info",
        "logs",
        "version",
        "get",
    ]
)


class Died(BaseException):
    pass


class Life:
    """So many calls of one thread; from then on it changes nothing on the engine any more, as after SIGKILL."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.made: list[str] = []
        self._thread = threading.current_thread()

    def spend(self, call: str) -> None:
        if threading.current_thread() is not self._thread:
            return
        self.left -= 1
        if self.left < 0:
            raise Died
        self.made.append(call)


class MortalClient:
    def __init__(self, client: docker.APIClient, life: Life) -> None:
        self.__dict__.update(_client=client, _life=life)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found) or name == "close" or name in READS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._life.spend(name)
            return found(*args, **kwargs)

        return call

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._client, name, value)


class MortalConnection(EngineConnection):
    def __init__(self, settings: DockerSettings, life: Life) -> None:
        super().__init__(settings.host, settings.timeout)
        self._life = life

    def client_with(self, timeout: float | None) -> Any:
        return MortalClient(super().client_with(timeout), self._life)

    @contextmanager
    def operation(self, timeout: float) -> Iterator[Any]:
        with super().operation(timeout) as client:
            yield MortalClient(client, self._life)


def build(builds: ImageBuilds, tag: str, text: str) -> None:
    order = BuildInput("c0ffee", make(BuildImage, "."))
    builds.build(tag, order, context_of({"Dockerfile": text}), lambda line: None)


def left(client: docker.APIClient, instance: str) -> list[str]:
    """What an interrupted build may leave: steps, their containers and network, and what limits them."""
    ours = {"label": f"{labels.BUILT_BY}={instance}"}
    found = [entry["Id"] for entry in client.containers(all=True, filters=ours)]
    found += [entry["Name"] for entry in client.networks(filters=ours)]
    return found + [image["Id"] for image in client.images(filters={**ours, "dangling": True})]


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_a_build_of_a_daemon_that_dies_before_any_call(
    client: docker.APIClient, instance: str, builder: str
) -> None:
    settings, tag = DockerSettings(builder=builder), f"{instance}.local/{APP}/web:1"
    deaths: list[str] = []
    with cache_locked(fcntl.LOCK_SH), closing(EngineConnection(settings.host, settings.timeout)) as alive:
        for number in itertools.count():
            text = f"FROM {BASE_IMAGE}\nRUN echo {instance} {number} > /a\nRUN echo {instance} > /b\n"
            life = Life(number)
            with closing(MortalConnection(settings, life)) as connection:
                try:
                    images = ImageStore(connection, settings, instance)
                    build(ImageBuilds(connection, settings, instance, images), tag, text)
                except Died:
                    deaths.append(life.made[-1] if life.made else "")
                else:
                    break
            images = ImageStore(alive, settings, instance)
            restarted = ImageBuilds(alive, settings, instance, images)

            def collected(builds: ImageBuilds = restarted) -> list[str]:
                builds.collect(age=0)
                return left(client, instance)

            wait_for(collected, lambda found: not found)
            build(restarted, tag, text)
            assert images.inspect(tag) is not None, f"after a death at call {number}, after {deaths[-1]}"
            images.prune(APP, 0, frozenset(), ())
            wait_for(collected, lambda found: not found)
            assert images.inspect(tag) is None
    assert {"classic": "build", "buildkit": "post"}[builder] in deaths, "it has died while the engine built"
    assert len(deaths) >= 4
