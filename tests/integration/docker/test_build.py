"""Builds on a real engine: what goes in, what comes out, and what is left of a failed one."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.desired import BuildInput
from controller.domain.errors import Stalled, Transient
from controller.domain.spec import BuildImage
from tests.support.engines import BASE_IMAGE, cleaned, tar_of
from tests.support.waiting import wait_for


@pytest.fixture
def tag(instance: str) -> str:
    return f"{instance}.local/app/web:1"


def build(
    engine: DockerEngine, tag: str, files: dict[str, str], source: BuildImage | None = None
) -> list[str]:
    """Lines of the log; the context comes in small pieces."""
    content = tar_of(files)
    pieces = [content[at : at + 1000] for at in range(0, len(content), 1000)]
    lines: list[str] = []
    engine.build(tag, BuildInput("c0ffee", source or BuildImage(".")), pieces, lines.append)
    return lines


def containers(client: docker.APIClient, tag: str) -> list[str]:
    """Commands of the containers in which a step that names `tag` runs or ran."""
    return [entry["Command"] for entry in client.containers(all=True) if tag in entry["Command"]]


def test_target_arguments_and_a_dockerfile_elsewhere(
    engine: DockerEngine, client: docker.APIClient, tag: str, instance: str
) -> None:
    dockerfile = (
        "FROM scratch AS first\nARG WHO\nENV WHO=$WHO\nCOPY a /\nFROM first AS second\nENV LAST=yes\n"
    )
    source = BuildImage(".", "deploy/Dockerfile", target="first", args=(("WHO", "me"),))
    lines = build(engine, tag, {"deploy/Dockerfile": dockerfile, "a": "1"}, source)
    assert lines[0].endswith("FROM scratch AS first")
    image = client.inspect_image(tag)  # type: ignore[no-untyped-call]
    assert image["Config"]["Env"][-1] == "WHO=me"
    assert image["Config"]["Labels"] == {labels.BUILT_BY: instance}


def test_dockerignore_is_applied_wherever_it_lies_in_the_stream(
    engine: DockerEngine, client: docker.APIClient, tag: str
) -> None:
    files = {
        "data/big.bin": "x",
        "data/small.txt": "kept",
        "app/secret.env": "x",
        "app/main.py": "kept",
        "Dockerfile": f"FROM {BASE_IMAGE}\nCOPY . /ctx\nRUN cd /ctx && find . -type f | sort > /found && cat /found\n",
        ".dockerignore": "# a comment\n\n**/*.env\ndata\n!data/small.txt\nDockerfile\n",
    }
    lines = build(engine, tag, files)
    assert {line for line in lines if line.startswith("./")} == {
        "./data/small.txt",
        "./app/main.py",
        "./.dockerignore",
    }  # the Dockerfile is sent, since the engine needs it, which then keeps it out of COPY as asked


def test_a_failed_step_is_shown_and_leaves_no_container(
    engine: DockerEngine, client: docker.APIClient, tag: str
) -> None:
    dockerfile = f"FROM {BASE_IMAGE}\nRUN echo first && echo no such thing: {tag} >&2 && exit 3\n"
    with pytest.raises(Stalled, match=f"no such thing: {tag}") as caught:
        build(engine, tag, {"Dockerfile": dockerfile})
    assert caught.value.reason == "BuildFailed"
    assert "returned a non-zero code: 3" in caught.value.message
    assert containers(client, tag) == []
    assert not engine.pin(BuildImage("."), tag, ()).present


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": "1"}, "Dockerfile"),
        ({"Dockerfile": "FROM scratch\nFETCH a\n"}, "FETCH"),
        ({"Dockerfile": "FROM scratch\nCOPY missing /\n"}, "missing"),
        ({"Dockerfile": ""}, "empty"),
    ],
)
def test_what_is_wrong_with_a_build_is_said(
    engine: DockerEngine, tag: str, files: dict[str, str], words: str
) -> None:
    with pytest.raises(Stalled, match=words) as caught:
        build(engine, tag, files)
    assert caught.value.reason == "BuildFailed"


def test_a_base_image_whose_registry_is_down_may_come_later(engine: DockerEngine, tag: str) -> None:
    with pytest.raises(Transient) as caught:
        build(engine, tag, {"Dockerfile": "FROM 127.0.0.1:1/team/base:1\n"})
    assert caught.value.reason == "RegistryUnreachable"


@pytest.mark.parametrize("endless", ["sleep 600", "while :; do echo more; sleep 0.1; done"])
def test_a_build_without_end_ends_and_leaves_no_container(
    client: docker.APIClient, instance: str, tag: str, tmp_path: Path, endless: str
) -> None:
    settings = DockerSettings(build_timeout=2.0)
    dockerfile = f"FROM {BASE_IMAGE}\nRUN echo {tag}; {endless}\n"
    source = BuildInput("c0ffee", BuildImage("."))
    running: list[str] = []

    def look(line: str) -> None:
        if line == tag:
            running.extend(containers(client, tag))

    with (
        closing(DockerEngine(settings, instance, tmp_path)) as engine,
        pytest.raises(Stalled, match=r"docker\.buildTimeout") as caught,
    ):
        engine.build(tag, source, [tar_of({"Dockerfile": dockerfile})], look)
    assert caught.value.reason == "BuildTimeout"
    assert len(running) == 1
    wait_for(lambda: containers(client, tag), lambda left: not left)


def test_two_workers_build_at_once(engine: DockerEngine, client: docker.APIClient, instance: str) -> None:
    with cleaned(client, instance):
        tags = [f"{instance}.local/app/{name}:1" for name in ("a", "b")]
        threads = [
            threading.Thread(
                target=build, args=(engine, tag, {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": tag})
            )
            for tag in tags
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(engine.pin(BuildImage("."), tag, ()).present for tag in tags)
