"""Counts what containers write where only they write: into their own file systems, and into volumes of their own, which
an image declares, or which stand for `/tmp` where the file system is read-only.

The engine counts as slowly as `du`, so these calls have a timeout of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker

from controller.adapters.docker.busy import disk_usage

Json = dict[str, Any]


def written(client: docker.APIClient, filters: Mapping[str, list[str]]) -> list[tuple[Json, int]]:
    """Return the running containers, as `GET /containers/json` describes them, each with its bytes. Raises errors of
    the SDK."""
    listed: list[Json] = client.containers(size=True, filters=filters)
    volumes = _volume_sizes(client) if any(map(_volumes, listed)) else {}
    return [
        (entry, int(entry.get("SizeRw") or 0) + sum(volumes.get(name, 0) for name in _volumes(entry)))
        for entry in listed
    ]


def _volumes(entry: Json) -> list[str]:
    return [mount["Name"] for mount in entry.get("Mounts") or () if mount.get("Name")]


def _volume_sizes(client: docker.APIClient) -> dict[str, int]:
    """Return bytes by name. The engine gives -1 where it does not know them."""
    found = disk_usage(client, "volume")
    return {each["Name"]: max(0, (each.get("UsageData") or {}).get("Size", 0)) for each in found}
