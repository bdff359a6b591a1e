"""Names of images, as https://pkg.go.dev/github.com/distribution/reference has them. Pure."""

from __future__ import annotations

import re
from typing import Final

HUB: Final = "docker.io"
TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HUB_NAMES: Final = frozenset((HUB, "index.docker.io", "registry-1.docker.io", "hub.docker.com"))


def hub_or(host: str) -> str:
    """Return a registry's host in lower case; Docker Hub's many names are one."""
    return HUB if host.lower() in _HUB_NAMES else host.lower()


def split_name(repository: str) -> tuple[str, str]:
    """Return the registry's host and the path of a name without tag and digest: of `python`, `docker.io` and
    `library/python`."""
    first, slash, path = repository.partition("/")
    # Paths have no capital letters, so a part with some is a host for engines since 23.
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    has_host = bool(slash) and is_host
    host, rest = (hub_or(first), path) if has_host else (HUB, repository)
    return host, f"library/{rest}" if host == HUB and "/" not in rest else rest


def familiar(reference: str) -> str:
    """Return a reference as engines show it, without what stands for Docker Hub: `docker.io/library/python@sha256:…` is
    `python@sha256:…`. The id of an image is what it is."""
    name, at, digest = reference.partition("@")
    host, path = split_name(name)
    if host != HUB:
        return f"{host}/{path}{at}{digest}"
    official = path.removeprefix("library/")
    return f"{path if '/' in official else official}{at}{digest}"


def split_reference(reference: str) -> tuple[str, str, str]:
    """Return the name, the tag and the digest of a reference as written; "" for what it lacks."""
    named, _, digest = reference.partition("@")
    before, slash, last = named.rpartition("/")
    name, _, tag = last.partition(":")
    return before + slash + name, tag, digest
