"""One upload: in one piece, or in parts side by side that a later command goes on with. The storage is given the MD5 of
everything and refuses what does not fit; what it made of it is compared once more with what was sent.
"""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from controller.adapters.files_client import checksums
from controller.adapters.files_client.api import File, FilesApi, Upload
from controller.adapters.files_client.errors import MISMATCH
from controller.adapters.files_client.links import Links
from controller.adapters.files_client.local import LocalFile, Moved, Sending
from controller.adapters.files_client.memory import Memory
from controller.adapters.server_client.errors import Stopped
from controller.adapters.server_client.patience import Patience
from controller.domain.addresses import Address
from controller.domain.errors import ControllerError, Stalled
from controller.domain.storage import Part

#: After these nobody can go on with the upload.
_LOST = ("LocalFileChanged", "FileNotFound")


def put_whole(
    api: FilesApi, links: Links, patience: Patience, file: LocalFile, address: Address, moved: Moved
) -> File:
    digest = file.md5(0, file.size)

    def attempt() -> str:
        return _send(
            links, api.put_link(address, file.size), Sending(file, 0, file.size, moved), digest, address
        )

    etag = patience.persist(attempt)
    file.check_unchanged()
    return File(address.name, file.size, etag)


def _send(links: Links, link: str, sending: Sending, digest: bytes, address: Address) -> str:
    """The ETag of what has arrived. Not arrived: nothing of it was moved."""
    try:
        headers = links.put(
            link, sending, sending.left, base64.b64encode(digest).decode(), f"cannot write {address}"
        )
        etag = headers.get("ETag", "").strip('"')
        if checksums.is_checksum(headers) and checksums.contradicts(etag, digest):
            raise MISMATCH.error(f"what arrived at {address} is not what was sent")
    except BaseException:
        with suppress(Stopped):
            sending.take_back()
        raise
    return etag


@dataclass(frozen=True)
class PartUpload:
    """`origin` and `version` tell which file it is to a later command: where it lies, and what changes with its
    content."""

    api: FilesApi
    links: Links
    patience: Patience
    memory: Memory
    pool: ThreadPoolExecutor
    file: LocalFile
    address: Address
    moved: Moved
    origin: str
    version: str

    def run(self) -> File:
        upload = self._resume() or self._begin()
        try:
            etag = self._send_all(upload)
            self.file.check_unchanged()
            found = self._complete(upload, etag)
        except Stalled as error:
            if error.reason in _LOST:
                self._give_up(upload.id)
            raise
        self.memory.forget(self._key)
        if etag and checksums.contradicts_parts(found.etag, etag):
            raise Stalled(
                "ChecksumMismatch", f"what was made of the parts of {self.address} is not what was sent"
            )
        return found

    @property
    def _key(self) -> str:
        area = "?area=developer" if self.address.developer else ""
        return f"{self.address.url}{area} < {self.origin}"

    def _resume(self) -> Upload | None:
        version, _, known = self.memory.recall(self._key).rpartition(" ")
        if not known:
            return None
        if version != self.version:  # nobody can go on with it, and room is kept for it
            self._give_up(known)
            return None
        try:
            return self.api.arrived(self.address, known)
        except Stalled as error:
            if error.reason != "FileNotFound":
                raise
            return None

    def _begin(self) -> Upload:
        upload = self.api.begin(self.address, self.file.size)
        self.memory.remember(self._key, f"{self.version} {upload.id}")
        return upload

    def _give_up(self, upload: str) -> None:
        with suppress(ControllerError):
            self.api.abort(self.address, upload)
        self.memory.forget(self._key)

    def _send_all(self, upload: Upload) -> str:
        """The ETag that the object must get, "" if the storage's are no checksums."""
        failed = threading.Event()

        def told(count: int) -> None:
            if failed.is_set():
                raise Stopped
            self.moved(count)

        arrived = {part.number: part for part in upload.parts}
        parts = [
            self.pool.submit(self._send_part, upload, number, arrived.get(number), told)
            for number in range(1, -(-self.file.size // upload.part_size) + 1)
        ]
        try:
            sent = [part.result() for part in parts]
        except Exception:
            failed.set()
            raise
        except BaseException:  # Ctrl-C
            self.patience.stop()
            raise
        finally:
            for part in parts:
                part.cancel()
            wait(parts)  # the file is open as long as somebody reads it
        checked = all(etag == digest.hex() for digest, etag in sent)
        return checksums.of_parts(digest for digest, _ in sent) if checked else ""

    def _send_part(
        self, upload: Upload, number: int, arrived: Part | None, moved: Moved
    ) -> tuple[bytes, str]:
        """MD5 and ETag."""
        start = (number - 1) * upload.part_size
        length = min(upload.part_size, self.file.size - start)
        digest = self.file.md5(start, length)
        if arrived and arrived.size == length and not checksums.contradicts(arrived.etag, digest):
            moved(length)
            return digest, arrived.etag

        def attempt() -> str:
            link = self.api.part_link(self.address, upload.id, number)
            return _send(self.links, link, Sending(self.file, start, length, moved), digest, self.address)

        return digest, self.patience.persist(attempt)

    def _complete(self, upload: Upload, etag: str) -> File:
        try:
            return self.api.complete(self.address, upload.id)
        except Stalled as error:
            if error.reason != "FileNotFound":
                raise
            # Perhaps it was complete already, and only the answer was lost.
            found, _ = self.patience.persist(lambda: self.api.find(self.address))
            if found.size != self.file.size or (etag and found.etag != etag):
                raise
            return found
