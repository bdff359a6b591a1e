"""`EmbeddedStorage`: the port `Storage` on a server of our own. Made by the daemon's wiring; nothing runs before its
first call."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from controller.adapters.embedded.gateway import Gateway, Timing
from controller.adapters.embedded.volume import Volume
from controller.adapters.objects import S3Admin, S3Objects
from controller.config.settings import StorageSettings
from controller.domain.accounts import account_secret, web_account
from controller.domain.storage import Account, StorageAccess

#: A server that listens everywhere is reached here from this host.
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class EmbeddedStorage:
    """Implements `controller.ports.Storage`. `key` is the key of this installation, which all secrets are derived from,
    `folder` where everything lies. Every call that needs the server starts it and waits for it: Transient
    `StorageUnreachable`, `StorageFull`, `StorageAddressTaken`, Stalled `StorageProgramMissing`."""

    def __init__(
        self, settings: StorageSettings, folder: Path, instance: str, key: bytes, timing: Timing | None = None
    ) -> None:
        root = _root(instance, key)
        url = internal_url(settings.listen)
        public_url = settings.public_url or f"http://{settings.listen}"
        self._objects = root_objects(settings, instance, key)
        self._admin = S3Admin(url, root.name, root.secret, settings.region)
        self._web = web_account(key, instance)
        self._access = StorageAccess(url, public_url, self._web.name, self._web.secret, settings.region)
        self._gateway = Gateway(settings, Volume(folder), root, self._greet, timing or Timing())

    def objects(self) -> S3Objects:
        self._gateway.require()
        return self._objects

    def admin(self) -> S3Admin:
        self._gateway.require()
        return self._admin

    def access(self) -> StorageAccess:
        """The server keeps accounts over its restarts; each call brings this one to what it should be, in case that the
        volume was restored, or the key is another one."""
        self._gateway.require()
        self._admin.ensure_account(self._web)
        return self._access

    def close(self) -> None:
        self._gateway.close()
        self._objects.close()

    def _greet(self) -> None:
        """It takes requests, and has read its accounts, which comes a moment later."""
        self._objects.ping()
        self._admin.accounts()


def root_objects(settings: StorageSettings, instance: str, key: bytes) -> S3Objects:
    """The server with all rights, whether it runs or not: for who only looks at it."""
    root, public_url = _root(instance, key), settings.public_url or f"http://{settings.listen}"
    return S3Objects(internal_url(settings.listen), root.name, root.secret, public_url, settings.region)


def _root(instance: str, key: bytes) -> Account:
    name = f"{instance}-root"
    return Account(name, account_secret(key, name))


def internal_url(listen: str) -> str:
    """How this host reaches a server that listens on `listen`, `HOST:PORT`."""
    host, _, port = listen.rpartition(":")
    return f"http://{_LOOPBACK.get(host, host)}:{port}"
