"""`EmbeddedStorage`: the port `Storage` with a server of our own. Created by the daemon's wiring; nothing
runs before its first call.

The server listens on a loopback port that is chosen at its start. Only the platform's own processes connect
to it: callers and containers use the interface of the web process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from controller.adapters.embedded.gateway import GatewayProcess, GatewayTiming
from controller.adapters.embedded.volume import StorageVolume
from controller.adapters.objects import S3Admin, S3Objects
from controller.config.settings import StorageSettings
from controller.domain.storage.accounts import account_secret, web_account
from controller.domain.storage.box import StorageAccess, StorageAccount
from controller.guards import Tell

#: Nothing listens there: requests before the first start get no response.
_NOWHERE = "127.0.0.1:1"


class EmbeddedStorage:
    """Implements `controller.ports.Storage`. `key` is the key of this installation, from which all secrets
    are derived; `folder` has all files. Every call that needs the server starts it and waits for it. Raises
    Transient `StorageUnreachable`, `StorageFull`, Stalled `StorageProgramMissing`.
    """

    def __init__(
        self,
        settings: StorageSettings,
        folder: Path,
        instance: str,
        key: bytes,
        timing: GatewayTiming | None = None,
        tell: Tell = lambda name, how: None,
        lend: Callable[[StorageAccess], None] = lambda access: None,
    ) -> None:
        """Create the storage. `tell` is called at each unexpected end of the server, `lend` with the access
        of the web process at each start.
        """
        self._settings = settings
        self._root = _root(instance, key)
        self._web = web_account(key, instance)
        self._clients: tuple[str, S3Objects, S3Admin] | None = None
        self._lend = lend
        self._gateway = GatewayProcess(
            settings,
            StorageVolume(folder),
            self._root,
            self._wait_until_ready,
            timing or GatewayTiming(),
            tell,
            self._serves,
        )

    def objects(self) -> S3Objects:
        self._gateway.require()
        return self._at_its_address()[0]

    def admin(self) -> S3Admin:
        self._gateway.require()
        return self._at_its_address()[1]

    def access(self) -> StorageAccess:
        """Return the access of the web process. The server keeps accounts over its restarts; each call sets
        this one again, in case that the volume was restored or the key has changed.
        """
        self._gateway.require()
        return self._present_access()

    def _present_access(self) -> StorageAccess:
        self._at_its_address()[1].ensure_account(self._web)
        return StorageAccess(
            f"http://{self._gateway.address}",
            self._settings.public_url or f"http://{self._settings.listen}",
            self._web.name,
            self._web.secret,
            self._settings.region,
        )

    def close(self) -> None:
        self._gateway.close()
        if self._clients is not None:
            self._clients[1].close()

    def _serves(self) -> None:
        self._lend(self._present_access())

    def _wait_until_ready(self) -> None:
        """Raise unless the server takes requests and has read its accounts, which happens a moment later."""
        objects, admin = self._at_its_address()
        objects.ping()
        admin.accounts()

    def _at_its_address(self) -> tuple[S3Objects, S3Admin]:
        """Return clients for the present address. Calls under way keep their clients."""
        address = self._gateway.address
        if self._clients is None or self._clients[0] != address:
            url, root, region = f"http://{address}", self._root, self._settings.region
            objects = S3Objects(url, root.name, root.secret, region)
            self._clients = (address, objects, S3Admin(url, root.name, root.secret, region))
        return self._clients[1], self._clients[2]


def root_objects(settings: StorageSettings, folder: Path, instance: str, key: bytes) -> S3Objects:
    """Return the server with all rights, whether it runs or not, for read-only commands."""
    root = _root(instance, key)
    address = StorageVolume(folder).address() or _NOWHERE
    return S3Objects(f"http://{address}", root.name, root.secret, settings.region)


def _root(instance: str, key: bytes) -> StorageAccount:
    name = f"{instance}-root"
    return StorageAccount(name, account_secret(key, name))
