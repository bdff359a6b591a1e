"""Images of a real registry whose layers both builders use as cache (`build.cacheFrom`), and those that they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import docker
import docker.errors
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.connection import EngineConnection
from controller.config import DockerSettings
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.policies import Policies
from controller.domain.apps.spec import BuildImage
from controller.domain.errors import Stalled
from tests.support.engines import BASE_IMAGE, context_of, tar_of, unique
from tests.support.registry import LocalRegistry, local_registry
from tests.support.specs import make
from tests.support.waiting import wait_for

BUILDERS = ("classic", "buildkit")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with local_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def pushed(client: docker.APIClient, registry: LocalRegistry) -> Iterator[str]:
    """A name in the registry, whose images are removed from this host."""
    name = f"{registry.host}/team/demo:{unique()}"
    yield name
    for image in client.images(name.rpartition(":")[0]):
        client.remove_image(image["Id"], force=True)


def dockerfile(tag: str) -> str:
    """What the step makes differs each time, and no other test has it."""
    return f"FROM {BASE_IMAGE}\nRUN echo {tag} > /name; date +%s%N > /made\n"


def build(engine: DockerEngine, tag: str, *cache: str, registries: LocalRegistry | None = None) -> list[str]:
    """Lines of the log."""
    source = replace(make(BuildImage, "."), cache_from=cache)
    order = BuildInput("c0ffee", source, (), registries.registries() if registries else ())
    lines: list[str] = []
    engine.build(tag, order, context_of({"Dockerfile": dockerfile(tag)}), lines.append)
    return lines


def layers(client: docker.APIClient, tag: str) -> list[str]:
    found: list[str] = client.inspect_image(tag)["RootFS"]["Layers"]  # type: ignore[no-untyped-call]
    return found


def forget(client: docker.APIClient, tag: str, builder: str) -> None:
    """Remove what the engine keeps of a build, as if it had been made elsewhere."""
    with suppress(docker.errors.NotFound):
        client.remove_image(tag, force=True)
    if builder == "buildkit":
        settings = DockerSettings()
        with closing(EngineConnection(settings.host, 60.0)) as connection:
            cache = BuildCache(connection, settings)
            wait_for(lambda: not remaining(client, cache, tag))


def remaining(client: docker.APIClient, cache: BuildCache, tag: str) -> list[str]:
    """Remove parts of the cache, and return those that were there before."""
    parts = [part["ID"] for part in cache.parts() if f"{tag} " in part["Description"]]
    for part in parts:
        only = {"all": "1", "filters": json.dumps({"id": [part]})}
        answer = client.post(f"{client.base_url}/v{client.api_version}/build/prune", params=only)
        assert answer.status_code == 200, answer.text
    return parts


def built_in_ci(
    client: docker.APIClient, engine: DockerEngine, registry: LocalRegistry, name: str, tag: str, builder: str
) -> list[str]:
    """Have an image in the registry whose steps are those of `dockerfile`; return its layers. The classic builder knows
    only what it has built itself."""
    if builder == "classic":
        build(engine, tag)
    else:
        url = f"{client.base_url}/v{client.api_version}/build"
        arguments = json.dumps({"BUILDKIT_INLINE_CACHE": "1"})
        wanted = {"version": "2", "t": tag, "buildargs": arguments, "networkmode": "none"}
        sent = tar_of({"Dockerfile": dockerfile(tag)})
        answer = client.post(url, params=wanted, data=sent, headers={"Content-Type": "application/x-tar"})
        assert answer.status_code == 200, answer.text
        assert '"error"' not in answer.text, answer.text
    made = layers(client, tag)
    assert registry.push(client, tag, name.rpartition(":")[2]) == name
    forget(client, tag, builder)
    return made


@pytest.mark.parametrize("builder", BUILDERS)
def test_layers_of_an_image_take_the_place_of_steps(
    client: docker.APIClient,
    registry: LocalRegistry,
    pushed: str,
    instance: str,
    tmp_path: Path,
    builder: str,
) -> None:
    """It is pulled with the credentials of the app, and the log names the digest."""
    tag = f"{instance}.local/app/web:1"
    policies = Policies(cache_images=(f"{registry.host}/team/*",))
    settings = DockerSettings(builder=builder)
    with closing(DockerEngine(settings, instance, tmp_path, policies=policies)) as engine:
        made = built_in_ci(client, engine, registry, pushed, tag, builder)
        denied = build(engine, tag, pushed)
        assert layers(client, tag) != made
        assert any(f"{pushed} is not used as cache: " in line for line in denied), denied
        forget(client, tag, builder)
        lines = build(engine, tag, f"{registry.host}/team/none:1", pushed, registries=registry)
        assert layers(client, tag) == made, lines
        assert f"{registry.host}/team/none:1 is not used as cache: " in lines[0]
        assert lines[1].startswith(f"layers of {pushed.rpartition(':')[0]}@sha256:")
        forget(client, tag, builder)


@pytest.mark.parametrize("builder", BUILDERS)
def test_layers_of_what_the_operator_does_not_name_are_not_used(
    client: docker.APIClient,
    registry: LocalRegistry,
    pushed: str,
    instance: str,
    tmp_path: Path,
    builder: str,
) -> None:
    """The builders keep them for the builds of all apps."""
    tag = f"{instance}.local/app/web:1"
    with closing(DockerEngine(DockerSettings(builder=builder), instance, tmp_path)) as engine:
        made = built_in_ci(client, engine, registry, pushed, tag, builder)
        lines = build(engine, tag, pushed, registries=registry)
        assert layers(client, tag) != made
        assert "policies.cacheImages" in lines[0]
        assert not client.images(pushed.rpartition(":")[0])
        forget(client, tag, builder)


@pytest.mark.parametrize("builder", BUILDERS)
def test_builds_of_other_apps_are_no_cache(
    client: docker.APIClient, instance: str, tmp_path: Path, builder: str
) -> None:
    other, tag = f"{instance}.local/other/web:1", f"{instance}.local/app/web:1"
    settings, policies = DockerSettings(builder=builder), Policies(cache_images=("*",))
    with closing(DockerEngine(settings, instance, tmp_path, policies=policies)) as engine:
        build(engine, other)
        id = client.inspect_image(other)["Id"].removeprefix("sha256:")  # type: ignore[no-untyped-call]
        for name in (other, id[:12]):
            with pytest.raises(Stalled) as caught:
                build(engine, tag, name)
            assert caught.value.reason == "ImageRefused", name
        forget(client, other, builder)


def test_the_classic_builder_keeps_using_what_its_app_has_built(
    client: docker.APIClient, registry: LocalRegistry, pushed: str, instance: str, tmp_path: Path
) -> None:
    """An engine that is given images as cache looks at no others by itself."""
    tag = f"{instance}.local/app/web:1"
    settings, policies = DockerSettings(builder="classic"), Policies(cache_images=("*",))
    with closing(DockerEngine(settings, instance, tmp_path, policies=policies)) as engine:
        built_in_ci(client, engine, registry, pushed, f"{tag}-other", "classic")
        build(engine, tag)
        before = layers(client, tag)
        lines = build(engine, tag, pushed, registries=registry)
        assert layers(client, tag) == before, lines
        assert lines[0].startswith("layers of ")
