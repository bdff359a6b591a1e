"""What `prichal image prune` removes on the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import docker.errors
import pytest

from controller.adapters.docker import listed
from controller.adapters.docker.listed import remove_images
from controller.config import DockerSettings

BUILT = "prichal.local/gone/build:1"
PULLED = "prichal.local/gone/pulled:17-b"


class Engine:
    """Names of images and what they name. Like the engine, it keeps an image while it has a name, forgets digests with
    the last tag of their repository, and removes nothing that `used` has."""

    def __init__(self, **images: tuple[str, ...]) -> None:
        self.images = {f"sha256:{id}": set(names) for id, names in images.items()}
        self.used: set[str] = set()

    client = property(lambda self: self)

    def close(self) -> None: ...

    def inspect_image(self, name: str) -> dict[str, Any]:
        id = self._id(name)
        names = sorted(self.images[id])
        tags, digests = ([each for each in names if ("@" in each) is wanted] for wanted in (False, True))
        return {"Id": id, "RepoTags": tags, "RepoDigests": digests}

    def remove_image(self, name: str) -> None:
        id = self._id(name)
        left = self.images[id] - {name} if name != id else set()
        if not any(_repository(each) == _repository(name) for each in left if "@" not in each):
            left = {each for each in left if _repository(each) != _repository(name)}
        if not left and id in self.used:
            raise docker.errors.APIError("conflict", response=_Answer(409))  # type: ignore[arg-type]
        self.images[id] = left
        if not left:
            del self.images[id]

    def _id(self, name: str) -> str:
        found = [id for id, names in self.images.items() if name == id or name in names]
        if not found:
            raise docker.errors.ImageNotFound("no such image", response=_Answer(404))  # type: ignore[arg-type]
        return found[0]


class _Answer:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


def _repository(name: str) -> str:
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine()
    monkeypatch.setattr(listed, "EngineConnection", lambda host, timeout: made)
    with closing(made):
        yield made


def remove(name: str, registry: str = "") -> bool:
    return name in remove_images(DockerSettings(registry=registry), [name])


def test_what_was_pulled_goes_with_its_names_from_the_registry(engine: Engine) -> None:
    for names in ((PULLED, "python@sha256:d"), (PULLED, "python@sha256:d", "python:3.13")):
        engine.images = {"sha256:b": set(names)}
        assert remove(PULLED)
        assert engine.images == {}


def test_a_name_by_somebody_else_keeps_it(engine: Engine) -> None:
    engine.images = {"sha256:b": {PULLED, "python@sha256:d", "mine:1"}}
    assert remove(PULLED)
    assert engine.images == {"sha256:b": {"python@sha256:d", "mine:1"}}


def test_a_build_goes_with_its_name_in_the_registry(engine: Engine) -> None:
    pushed = "registry.example.org/x/prichal/gone/build:1"
    for names in ({BUILT}, {BUILT, pushed, "registry.example.org/x/prichal/gone/build@sha256:d"}):
        engine.images = {"sha256:a": names}
        assert remove(BUILT, "registry.example.org/x")
        assert engine.images == {}
    engine.images = {"sha256:a": {BUILT, "prichal.local/other/build:1"}}
    assert remove(BUILT, "registry.example.org/x")
    assert engine.images == {"sha256:a": {"prichal.local/other/build:1"}}


def test_what_is_in_use_keeps_our_name(engine: Engine) -> None:
    engine.images, engine.used = {"sha256:b": {PULLED, "python@sha256:d"}}, {"sha256:b"}
    assert not remove(PULLED)
    assert PULLED in engine.images["sha256:b"], "it says whose the image is"


def test_what_a_build_has_named_meanwhile_stays(engine: Engine) -> None:
    engine.images = {"sha256:c": {BUILT}, "sha256:d": set()}
    assert not remove("sha256:c")
    assert remove("sha256:d")
    assert remove("sha256:d"), "it is gone"
    assert engine.images == {"sha256:c": {BUILT}}
