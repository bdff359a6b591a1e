"""Starts that this host's engine really refuses: each is the module's fault, is named, and leaves nothing over.

A command that cannot be executed is not among them: with an init process the start succeeds, and the container ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.domain.apps.spec import Resources
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.secret import Secret
from tests.support.engines import (
    BASE_IMAGE,
    MEBIBYTE,
    build_image,
    name_of,
    own_server_workload,
    unique,
)
from tests.support.specs import make

BASE = 'CMD ["true"]'


@pytest.fixture
def tag(client: docker.APIClient) -> Iterator[str]:
    name = f"{unique()}:1"
    yield name
    client.remove_image(name, force=True)


@pytest.mark.parametrize(
    ("reason", "lines", "changes"),
    [
        ("UserNotFound", 'USER appuser\nCMD ["true"]', {}),
        ("UserNotFound", 'USER root:appgroup\nCMD ["true"]', {}),
        ("LimitsInvalid", BASE, {"resources": make(Resources, cpus=0.5, memory=MEBIBYTE, pids=32)}),
        ("LimitsInvalid", BASE, {"resources": make(Resources, cpus=5000, memory=64 * MEBIBYTE, pids=32)}),
        ("EnvironmentInvalid", BASE, {"env": (("A", Secret("a\0b")),)}),
    ],
)
def test_it_is_named_and_leaves_nothing(
    engine: DockerEngine,
    client: docker.APIClient,
    instance: str,
    app: AppName,
    tag: str,
    reason: str,
    lines: str,
    changes: dict[str, object],
) -> None:
    build_image(client, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\n{lines}\n"})
    workload = own_server_workload(tag, app)
    if "resources" in changes:
        workload = replace(workload, spec=replace(workload.spec, **changes))  # type: ignore[arg-type]
    else:
        workload = replace(workload, **changes)  # type: ignore[arg-type]
    engine.ensure_network(app)
    with pytest.raises(Stalled) as caught:
        engine.start(workload, name_of(workload, instance))
    assert caught.value.reason == reason
    assert engine.observe(app).workloads == ()
