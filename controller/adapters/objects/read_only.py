"""`ReadOnlyStorage`: the embedded storage for previews, with the keys that the web process has. It starts nothing."""

from __future__ import annotations

from controller.adapters.objects.client import S3Objects
from controller.domain.errors import Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.storage.box import StorageAccess
from controller.ports import Boxes


class ReadOnlyStorage:
    """Implements `controller.ports.Storage`."""

    def __init__(self, boxes: Boxes) -> None:
        self._boxes = boxes
        self._objects: S3Objects | None = None

    def objects(self) -> S3Objects:
        if self._objects is None:
            self._objects = S3Objects.of(self.access())
        return self._objects

    def admin(self) -> None:
        return None

    def access(self) -> StorageAccess:
        access = self._boxes.access()
        if access is None:
            message = Localizable("there is no box yet: the daemon starts the storage with the first one")
            raise Transient(Reason.STORAGE_UNREACHABLE, message)
        return access

    def close(self) -> None:
        if self._objects is not None:
            self._objects.close()
