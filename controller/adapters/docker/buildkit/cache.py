"""Keeps the cache of the engine's BuildKit within a bound: layers of steps, caches that steps mount, contexts.

The engine has one cache, for all builds by it, and older engines do not tell whose a part of it is. So the bound is for
all of it, and the parts that were not used for longest go first. Nothing in it is needed: a build makes it again. An
engine whose BuildKit builds nothing of ours is left alone: its cache is that of other people.
"""

from __future__ import annotations

import json
from typing import Any

from controller.adapters.docker.busy import ask_again, disk_usage
from controller.adapters.docker.connection import EngineConnection
from controller.config import DockerSettings

#: Contexts of builds that have ended: each build sends its own.
_TRANSFERS = {"type": ["source.local"]}

Json = dict[str, Any]


class BuildCache:
    """Raises what the SDK raises."""

    def __init__(self, connection: EngineConnection, settings: DockerSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._is_used = False

    def used(self) -> None:
        """Take note of a build of ours, which adds to the cache."""
        self._is_used = True

    def collect(self, age: float) -> None:
        """Remove contexts that were not used for `age` seconds, and what is beyond the bound; nothing before the first
        build of this process. What a build uses now stays."""
        if not self._is_used:
            return
        self._prune(filters={**_TRANSFERS, "until": [f"{round(age)}s"]}, keep=0)
        self._prune(filters={}, keep=self._settings.build_cache)

    def size(self) -> int:
        """Return its bytes. Takes an engine with many images and containers some seconds."""
        return sum(int(one.get("Size") or 0) for one in self.parts())

    def parts(self) -> list[Json]:
        """Return what is in it, as the engine describes it."""
        return disk_usage(self._connection.client, "build-cache")

    def _prune(self, filters: dict[str, list[str]], keep: int) -> None:
        params = {"filters": json.dumps(filters), "keep-storage": str(keep)}
        ask_again(self._connection.client, "POST", "build/prune", params)
