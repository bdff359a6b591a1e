"""Workloads and unique names for tests that run containers, and the clean-up after them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from secrets import token_hex

import docker
import docker.errors

from controller.domain import labels
from controller.domain.apps.desired import Workload
from controller.domain.apps.spec import ExistingImage, MLComponentSpec, OwnServer, PlatformServer, Resources
from controller.domain.names import AppName, ComponentName, workload_name
from controller.domain.secret import Secret
from controller.ports import BuildContext
from tests.support.specs import make
from tests.support.waiting import wait_for

BASE_IMAGE = "prichal-example-base:1"
MEBIBYTE = 2**20


def unique(prefix: str = "t") -> str:
    return f"{prefix}-{token_hex(4)}"


def own_server_workload(
    image: str, app: str = "app", component: str = "web", fingerprint: str = "", replica: int = 0
) -> Workload:
    """A small container with an HTTP server of its own on port 8002."""
    spec = make(
        MLComponentSpec,
        name=ComponentName(component),
        image=ExistingImage(image),
        server=make(OwnServer, ready_path="/"),
        resources=make(Resources, cpus=0.5, memory=64 * MEBIBYTE, pids=32),
    )
    return Workload(
        app=AppName(app),
        component=ComponentName(component),
        replica=replica,
        fingerprint=fingerprint or f"1:{token_hex(32)}",
        revision="c0ffee",
        image=image,
        spec=spec,
    )


def platform_workload(image: str, app: str, inference: str, env: Mapping[str, str] | None = None) -> Workload:
    """The same, served by the platform's library."""
    workload = own_server_workload(image, app, "model")
    spec = replace(workload.spec, server=make(PlatformServer, inference))
    return replace(workload, spec=spec, env=tuple((k, Secret(v)) for k, v in (env or {}).items()))


def name_of(workload: Workload, instance: str) -> str:
    return workload_name(instance, workload.app, workload.component, workload.fingerprint, workload.replica)


def tar_of(files: Mapping[str, str]) -> bytes:
    """An uncompressed tar with these texts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, text in files.items():
            content = text.encode()
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def context_of(files: Mapping[str, str], dockerfile: str = "Dockerfile") -> BuildContext:
    """Of a build that sees all of them."""
    return BuildContext(files[dockerfile].encode(), None, [tar_of(files)])


def build_image(client: docker.APIClient, tag: str, files: Mapping[str, str]) -> None:
    """Raises AssertionError with the engine's words if the build fails."""
    for message in client.build(
        fileobj=io.BytesIO(tar_of(files)), custom_context=True, tag=tag, rm=True, forcerm=True, decode=True
    ):
        assert "error" not in message, message


@contextmanager
def http_server_image(client: docker.APIClient) -> Iterator[str]:
    """An image whose own command serves HTTP on port 8002; removed afterwards."""
    tag = f"{unique()}:1"
    command = 'CMD ["python3", "-u", "-m", "http.server", "8002"]'
    build_image(client, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\n{command}\n"})
    try:
        yield tag
    finally:
        client.remove_image(tag, force=True)


def _are_builds_over(client: docker.APIClient, instance: str) -> bool:
    """Remove the network of builds, if there is one. The engine removes the step of a build that was ended after its
    processes, and the network is in use until then."""
    try:
        for network in client.networks(names=[f"{instance}.builds"]):
            client.remove_network(network["Id"])
    except docker.errors.APIError as error:
        if error.status_code not in (403, 404):
            raise
        return False
    return True


@contextmanager
def cleaned(client: docker.APIClient, instance: str) -> Iterator[None]:
    """Afterwards no container, network or image of `instance` is left."""
    try:
        yield
    finally:
        ours = {"label": f"{labels.INSTANCE}={instance}"}
        for container in client.containers(all=True, filters=ours):
            client.remove_container(container["Id"], v=True, force=True)
        for network in client.networks(filters=ours):
            client.remove_network(network["Id"])
        wait_for(lambda: _are_builds_over(client, instance))
        for image in client.images(filters={"label": f"{labels.BUILT_BY}={instance}"}):
            client.remove_image(image["Id"], force=True)
