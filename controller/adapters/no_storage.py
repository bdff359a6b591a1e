"""`NoStorage` replaces the storage if the configuration has none (`storage.backend: none`)."""

from __future__ import annotations

from typing import NoReturn

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.ports import StorageAdmin


class NoStorage:
    """Implements `controller.ports.Storage`."""

    def objects(self) -> NoReturn:
        raise Stalled(
            Reason.STORAGE_DISABLED,
            Localizable(
                "boxes need a storage, but none is configured: set storage.backend to embedded or s3, then "
                "restart prichal"
            ),
        )

    def admin(self) -> StorageAdmin | None:
        return None

    def access(self) -> NoReturn:
        self.objects()

    def close(self) -> None:
        pass
