"""`S3Storage`: the storage of `storage.backend: s3`, a server that the operator provides. Created by the
daemon's wiring.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from controller.adapters.objects.admin import S3Admin
from controller.adapters.objects.client import S3Objects
from controller.config.settings import StorageSettings
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.storage.accounts import web_account
from controller.domain.storage.box import StorageAccess
from controller.yaml_documents import parse


class S3Storage:
    """Implements `controller.ports.Storage`. The credentials are read by the first call that needs them, so
    that the daemon starts without them.
    """

    def __init__(self, settings: StorageSettings, instance: str, key: bytes) -> None:
        self._settings = settings
        self._instance = instance
        self._key = key

    def objects(self) -> S3Objects:
        return self._objects

    def admin(self) -> S3Admin | None:
        return self._admin

    def access(self) -> StorageAccess:
        """Return the access of the web process. Without an admin API there are no accounts: then both
        processes use the account in the configuration.
        """
        account_key, secret = self._credentials
        if self._admin is not None:
            account = web_account(self._key, self._instance)
            self._admin.ensure_account(account)
            account_key, secret = account.name, account.secret
        return StorageAccess(
            self._settings.endpoint,
            self._settings.public_url or f"http://{self._settings.listen}",
            account_key,
            secret,
            self._settings.region,
        )

    def close(self) -> None:
        if "_objects" in self.__dict__:
            self._objects.close()

    @cached_property
    def _objects(self) -> S3Objects:
        access_key, secret_key = self._credentials
        return S3Objects(
            self._settings.endpoint,
            access_key,
            secret_key,
            self._settings.region,
        )

    @cached_property
    def _admin(self) -> S3Admin | None:
        if self._settings.admin != "minio":
            return None
        return S3Admin(self._settings.endpoint, *self._credentials, self._settings.region)

    @cached_property
    def _credentials(self) -> tuple[str, Secret]:
        if self._settings.credentials is None:
            raise _unusable(Localizable("`storage.credentials` is not set"))
        return read_credentials(self._settings.credentials)


def read_credentials(path: Path, option: str = "storage.credentials") -> tuple[str, Secret]:
    """Return access key and secret key from a YAML file with exactly the keys `accessKey` and `secretKey`. `option` of
    the configuration names the file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(f"{path}: {error.strerror}", option) from error
    parsed = parse(str(path), content)
    if parsed.problems:
        raise _unusable(str(parsed.problems[0]), option)
    value = parsed.documents[0].value if len(parsed.documents) == 1 else None
    match value:
        case {"accessKey": str(access_key), "secretKey": str(secret_key), **rest} if (
            access_key and secret_key and not rest
        ):
            return access_key, Secret(secret_key)
    raise _unusable(
        Localizable("{path} must have two texts, `accessKey` and `secretKey`, and nothing else", path=path),
        option,
    )


def _unusable(problem: str, option: str = "storage.credentials") -> Stalled:
    return Stalled(
        Reason.STORAGE_CREDENTIALS,
        Localizable("the storage's credentials cannot be used: {problem}", problem=problem)
        if option.startswith("storage.")
        else Localizable("the backup's credentials cannot be used: {problem}", problem=problem),
    )
