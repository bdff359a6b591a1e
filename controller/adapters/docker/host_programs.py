"""Containers that run a script with the programs of the engine's host: their file system is empty but for these, which
are read-only, so they need no image of anybody. Used by `egress` and `buildkit`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import docker.errors
from docker import APIClient

from controller.domain import labels

#: `/etc/alternatives` says which of several programs with one purpose is in use.
_PROGRAMS = ("/usr", "/etc/alternatives")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


@contextmanager
def empty_image(client: APIClient, instance: str) -> Iterator[str]:
    """Yield the id of an image that exists until the end of the block, unless a container needs it longer."""
    label = f"LABEL {labels.BUILT_BY}={instance}"
    answer = client.import_image_from_data(empty_archive(), changes=[label])
    image = answer.split('"status":"')[-1].split('"')[0]
    try:
        yield image
    finally:
        with suppress(docker.errors.APIError):  # the collection of builds does it later
            client.remove_image(image)


def config(image: str, script: str, named: Mapping[str, str], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the request that creates the container. `named` are its labels; `more` has what the script
    needs of the host; without it, it has no right and no network."""
    mounts = [{"Type": "bind", "Source": path, "Target": path, "ReadOnly": True} for path in _PROGRAMS]
    host = {
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "Memory": 64 * 2**20,
        "PidsLimit": 64,
        **more,
        "Mounts": [*mounts, *more.get("Mounts", ())],
    }
    return {
        "Image": image,
        "Entrypoint": ["/usr/bin/sh", "-c", script],
        "Env": ["PATH=/usr/sbin:/usr/bin"],
        "Labels": dict(named),
        "HostConfig": host,
    }


def empty_archive() -> bytes:
    """Return a tar of an image: mount points, and links as hosts have them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("usr", "etc", "etc/alternatives", "run", "proc", "sys", "dev"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, target in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return buffer.getvalue()
