"""How much of the engine's disk is free, where the engine is on this host. Used by `pulled` and `builds`."""

from __future__ import annotations

import os

from controller.adapters.docker.connection import EngineConnection


class EngineDisk:
    """Connects on first use."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._root: str | None = None

    def free(self) -> int | None:
        """Return the free bytes; None if the disk is not on this host."""
        if not self._connection.host.startswith("unix:"):
            return None
        if self._root is None:
            self._root = str(self._connection.client.info().get("DockerRootDir") or "")
        try:
            found = os.statvfs(self._root)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
