"""Image references, the credentials that fit them, and what is removed by them."""

from __future__ import annotations

from typing import Any

import pytest

from controller.adapters.docker.layers import LayerSizes
from controller.adapters.docker.pulled import PulledImages
from controller.adapters.docker.references import Reference, credentials
from controller.domain.apps.spec import Registry, SecretSpec
from controller.domain.image_names import familiar
from controller.domain.names import AppName
from controller.domain.secret import Secret

DIGEST = "sha256:" + 64 * "a"


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest", "host", "path"),
    [
        ("demo", "demo", "latest", None, "docker.io", "library/demo"),
        ("team/demo:1", "team/demo", "1", None, "docker.io", "team/demo"),
        ("docker.io/demo:1", "docker.io/demo", "1", None, "docker.io", "library/demo"),
        ("index.docker.io/team/demo", "index.docker.io/team/demo", "latest", None, "docker.io", "team/demo"),
        ("localhost/demo", "localhost/demo", "latest", None, "localhost", "demo"),
        ("hub:5000/a/b:c", "hub:5000/a/b", "c", None, "hub:5000", "a/b"),
        (f"hub.org/a@{DIGEST}", "hub.org/a", "latest", DIGEST, "hub.org", "a"),
        (f"hub.org:5000/a:1@{DIGEST}", "hub.org:5000/a", "1", DIGEST, "hub.org:5000", "a"),
    ],
)
def test_parts(text: str, repository: str, tag: str, digest: str | None, host: str, path: str) -> None:
    assert Reference.parse(text) == Reference(repository, tag, digest, host, path)


def test_a_pinned_reference_has_no_tag() -> None:
    assert Reference.parse(f"hub.org/a:1@{DIGEST}").at(DIGEST) == f"hub.org/a@{DIGEST}"
    assert Reference.parse("hub.org/a").tagged == "hub.org/a:latest"


def test_digests_of_other_repositories_do_not_count() -> None:
    image = {"RepoDigests": [f"demo@{DIGEST}", f"hub.org/demo@{DIGEST[:-1]}b", f"team/demo@{DIGEST[:-1]}c"]}
    assert Reference.parse("docker.io/library/demo:9").digests_of(image) == [DIGEST]
    assert Reference.parse("other").digests_of(image) == []
    assert Reference.parse("demo").digests_of({"RepoDigests": None}) == []
    assert Reference.parse("demo").digests_of(None) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("demo", "demo"),
        (f"docker.io/library/demo@{DIGEST}", f"demo@{DIGEST}"),
        (f"index.docker.io/team/demo@{DIGEST}", f"team/demo@{DIGEST}"),
        ("library/team/demo", "library/team/demo"),
        (f"hub.org:5000/library/demo@{DIGEST}", f"hub.org:5000/library/demo@{DIGEST}"),
        ("prichal.local/demo/build:1", "prichal.local/demo/build:1"),
        (DIGEST, DIGEST),
    ],
)
def test_a_reference_as_engines_show_it(text: str, shown: str) -> None:
    assert familiar(text) == familiar(shown) == shown


class Engine:
    """Has an image of Docker Hub that was pulled for an app."""

    tags = ("demo:1", "prichal.local/gone/pulled:17-b")

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.tagged: list[tuple[str, str, str]] = []

    client = property(lambda self: self)

    def images(self, filters: dict[str, str] | None = None) -> list[dict[str, Any]]:
        digests = None if filters else [f"demo@{DIGEST}"]
        return [{"Id": "sha256:b", "RepoTags": list(self.tags), "RepoDigests": digests}]

    def containers(self, all: bool) -> list[dict[str, Any]]:
        return []

    def inspect_image(self, name: str) -> dict[str, Any]:
        return self.images()[0]

    def remove_image(self, name: str) -> None:
        self.removed.append(name)

    def tag(self, image: str, repository: str, tag: str) -> None:
        self.tagged.append((image, repository, tag))


@pytest.mark.parametrize("needed", ["sha256:b", f"docker.io/library/demo@{DIGEST}", "other"])
def test_what_was_pulled_for_an_app_goes_with_it_unless_others_need_it(needed: str) -> None:
    engine: Any = Engine()
    pulled = PulledImages(engine, LayerSizes(engine), "prichal", 0)
    pulled.forget(AppName("gone"), {needed: AppName("heir")})
    if needed == "other":
        assert (engine.tagged, engine.removed) == ([], ["demo:1", f"demo@{DIGEST}", Engine.tags[1]])
    else:
        tag = Engine.tags[1].rpartition(":")[2]
        assert engine.tagged == [("sha256:b", "prichal.local/heir/pulled", tag)]
        assert engine.removed == [Engine.tags[1]], "it keeps its names from the registry"


def given(url: str) -> tuple[tuple[Registry, SecretSpec | None], ...]:
    secret = SecretSpec("cred", (("username", Secret("me")), ("password", Secret("hunter22"))))
    return ((Registry("open", "other.org"), None), (Registry("hub", url, "cred"), secret))


@pytest.mark.parametrize(
    ("url", "image"),
    [
        ("registry.example.org", "registry.example.org/team/demo:1"),
        ("https://registry.example.org/v2/", "registry.example.org/demo"),
        ("http://Registry.Example.org:5000", "registry.example.org:5000/demo"),
        ("docker.io", "demo"),
        ("https://index.docker.io/v1/", "team/demo:1"),
        ("registry-1.docker.io", "docker.io/team/demo:1"),
    ],
)
def test_credentials_go_to_their_own_registry(url: str, image: str) -> None:
    assert credentials(Reference.parse(image), given(url)) == {
        "username": Secret("me"),
        "password": Secret("hunter22"),
    }


@pytest.mark.parametrize(
    ("url", "image"),
    [
        ("registry.example.org", "demo"),
        ("registry.example.org", "registry.example.org.evil.net/demo"),
        ("registry.example.org", "evil.net/registry.example.org/demo"),
        ("registry.example.org:5000", "registry.example.org/demo"),
        ("docker.io", "registry.example.org/demo"),
    ],
)
def test_credentials_go_nowhere_else(url: str, image: str) -> None:
    assert credentials(Reference.parse(image), given(url)) == {}
