"""`prichal image ls` and `prune` on a real engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.listed import DockerImages
from controller.config import load
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from tests.integration.docker.test_build import build
from tests.support.engines import BASE_IMAGE
from tests.support.image_lists import answering
from tests.support.stores import open_store
from tests.support.waiting import wait_for
from tests.unit.cli.conftest import Machine


@pytest.fixture
def machine(instance: str, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the daemon's thread that answers, whose builds are over after a second."""
    made = Machine(tmp_path)
    made.configure(f"instance: {instance}\ndocker: {{buildTimeout: 1s}}")
    settings = load(made.config)
    with closing(open_store(settings.database)) as store:
        store.heartbeat(time.time() + 3600)
        store.apps.save(AppStatus(AppName("app")))
        with answering(store, DockerImages(settings.docker, settings.instance), settings):
            yield made


def listed(machine: Machine) -> list[tuple[str | None, str]]:
    shown = machine.run("image", "ls", "-o", "json")
    assert shown.code == 0, shown.stderr
    return [(each["app"], each["kind"]) for each in json.loads(shown.stdout) if each["kind"] != "cache"]


def test_images_are_listed_until_they_are_removed(
    engine: DockerEngine, machine: Machine, instance: str
) -> None:
    tag = f"{instance}.local/app/build:1"
    build(engine, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN echo {tag} > /a\n"})
    with pytest.raises(Stalled):
        build(engine, f"{tag}2", {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN echo {tag} > /b\nRUN exit 3\n"})
    assert listed(machine) == [("app", "built"), (None, "unfinished")]
    engine.collect_builds(age=0)
    assert listed(machine) == [("app", "built")]
    told = machine.run("image", "ls", "--app", "other")
    assert (told.code, told.stdout) == (0, "")


def test_what_nothing_needs_is_removed_when_a_person_asks(
    engine: DockerEngine, client: docker.APIClient, machine: Machine, instance: str
) -> None:
    for app in ("app", "gone", "used"):
        build(
            engine,
            f"{instance}.local/{app}/build:1",
            {"Dockerfile": f"FROM {BASE_IMAGE}\nRUN echo {app} > /a\n"},
        )
    with pytest.raises(Stalled):
        text = f"FROM {BASE_IMAGE}\nRUN echo {instance} > /b\nRUN exit 3\n"
        build(engine, f"{instance}.local/app/build:2", {"Dockerfile": text})
    used = client.create_container(f"{instance}.local/used/build:1", ["true"])["Id"]
    try:
        everything = listed(machine)
        wait_for(lambda: pruned(machine, "--dry-run"), lambda found: len(found) == 2)
        assert listed(machine) == everything, "a dry run removes nothing"
        assert sorted(pruned(machine, "--yes"), key=str) == [("gone", "built"), (None, "unfinished")]
        assert listed(machine) == [("app", "built"), ("used", "built")]
        assert pruned(machine, "--yes") == []
    finally:
        client.remove_container(used)


def pruned(machine: Machine, *options: str) -> list[tuple[str | None, str]]:
    shown = machine.run("image", "prune", "-o", "json", *options)
    assert shown.code == 0, shown.stderr
    return [(each["app"], each["kind"]) for each in json.loads(shown.stdout) if each["removed"]]
