"""One upload: in one piece, or in parallel parts that a later command can resume. The storage gets the MD5 of
everything and refuses what does not match; its result is also compared with what was sent.
"""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from controller.client.errors import Stopped
from controller.client.files import checksums
from controller.client.files.api import FilesApi, RemoteFile, UploadStatus
from controller.client.files.errors import MISMATCH
from controller.client.files.links import LinkTransport
from controller.client.files.local_files import LocalFile, Moved, SendingFile
from controller.client.files.resume import ResumeState
from controller.client.retry import RetryPolicy
from controller.domain.errors import ControllerError, Stalled
from controller.domain.reasons import Reason
from controller.domain.storage.addresses import BoxAddress
from controller.domain.storage.box import Part
from controller.domain.storage.content_types import content_type_of

#: After these errors the upload cannot be resumed.
_LOST = (Reason.LOCAL_FILE_CHANGED, Reason.FILE_NOT_FOUND)


def put_whole(
    api: FilesApi,
    links: LinkTransport,
    retry_policy: RetryPolicy,
    file: LocalFile,
    address: BoxAddress,
    moved: Moved,
) -> RemoteFile:
    digest = file.md5(0, file.size)

    def attempt() -> str:
        link = api.put_link(address, file.size)
        sending = SendingFile(file, 0, file.size, moved)
        return _send(links, link, sending, digest, address, content_type_of(address.name))

    etag = retry_policy.retry(attempt)
    file.check_unchanged()
    return RemoteFile(address.name, file.size, etag)


def _send(
    links: LinkTransport,
    link: str,
    sending: SendingFile,
    digest: bytes,
    address: BoxAddress,
    content_type: str = "",
) -> str:
    """Send, and return the ETag. If it fails, its bytes do not count as moved."""
    try:
        md5 = base64.b64encode(digest).decode()
        headers = links.put(
            link, sending, sending.left, md5, f"cannot write {address}", content_type=content_type
        )
        etag = headers.get("ETag", "").strip('"')
        if checksums.is_checksum(headers) and checksums.contradicts(etag, digest):
            raise MISMATCH.error(str(address), "the content that arrived differs from what was sent")
    except BaseException:
        with suppress(Stopped):
            sending.take_back()
        raise
    return etag


@dataclass(frozen=True)
class PartUpload:
    """`origin` and `version` identify the file to a later command: its path, and a text that changes with its
    content.
    """

    api: FilesApi
    links: LinkTransport
    retry_policy: RetryPolicy
    memory: ResumeState
    pool: ThreadPoolExecutor
    file: LocalFile
    address: BoxAddress
    moved: Moved
    origin: str
    version: str

    def run(self) -> RemoteFile:
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
                Reason.CHECKSUM_MISMATCH,
                f"the content of {self.address} differs from the parts that were sent",
            )
        return found

    @property
    def _key(self) -> str:
        area = "?area=developer" if self.address.developer else ""
        return f"{self.address.url}{area} < {self.origin}"

    def _resume(self) -> UploadStatus | None:
        version, _, known = self.memory.recall(self._key).rpartition(" ")
        if not known:
            return None
        if version != self.version:  # it cannot be resumed, but its space is reserved
            self._give_up(known)
            return None
        try:
            return self.api.arrived(self.address, known)
        except Stalled as error:
            if error.reason != Reason.FILE_NOT_FOUND:
                raise
            return None

    def _begin(self) -> UploadStatus:
        upload = self.api.begin(self.address, self.file.size)
        self.memory.remember(self._key, f"{self.version} {upload.id}")
        return upload

    def _give_up(self, upload: str) -> None:
        with suppress(ControllerError):
            self.api.abort(self.address, upload)
        self.memory.forget(self._key)

    def _send_all(self, upload: UploadStatus) -> str:
        """Send the parts, and return the ETag that the object must get; "" if the ETags are not checksums."""
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
            self.retry_policy.stop()
            raise
        finally:
            for part in parts:
                part.cancel()
            wait(parts)  # the file must stay open while a thread reads it
        checked = all(etag == digest.hex() for digest, etag in sent)
        return checksums.of_parts(digest for digest, _ in sent) if checked else ""

    def _send_part(
        self, upload: UploadStatus, number: int, arrived: Part | None, moved: Moved
    ) -> tuple[bytes, str]:
        """Send a part, and return its MD5 and ETag."""
        start = (number - 1) * upload.part_size
        length = min(upload.part_size, self.file.size - start)
        digest = self.file.md5(start, length)
        if arrived and arrived.size == length and not checksums.contradicts(arrived.etag, digest):
            moved(length)
            return digest, arrived.etag

        def attempt() -> str:
            link = self.api.part_link(self.address, upload.id, number)
            return _send(self.links, link, SendingFile(self.file, start, length, moved), digest, self.address)

        return digest, self.retry_policy.retry(attempt)

    def _complete(self, upload: UploadStatus, etag: str) -> RemoteFile:
        try:
            return self.api.complete(self.address, upload.id)
        except Stalled as error:
            if error.reason != Reason.FILE_NOT_FOUND:
                raise
            # It may be complete already, and only the response was lost.
            found, _ = self.retry_policy.retry(lambda: self.api.find(self.address))
            if found.size != self.file.size or (etag and found.etag != etag):
                raise
            return found
