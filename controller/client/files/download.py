"""One download: into `<name>.part`, resumed where it was interrupted, verified and finally renamed; or into a
stream, which gets the bytes as they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.client.files.api import FilesApi, RemoteFile
from controller.client.files.checksums import Match, is_checksum
from controller.client.files.errors import CHANGED, MISMATCH, STORAGE_AWAY
from controller.client.files.links import LinkTransport
from controller.client.files.local_files import DownloadTarget, Moved
from controller.client.files.resume import ResumeState
from controller.client.retry import RetryPolicy
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.storage.addresses import BoxAddress

RESUME_FROM: Final = 8 * 2**20  # bytes; smaller files are downloaded again instead of resumed


@dataclass
class Download:
    """`etag` is that of the object whose beginning the sink has."""

    api: FilesApi
    links: LinkTransport
    retry_policy: RetryPolicy
    memory: ResumeState
    address: BoxAddress
    sink: DownloadTarget
    moved: Moved
    etag: str = ""
    mismatches: int = 0

    def run(self) -> RemoteFile:
        self.etag = self.memory.recall(self.sink.key) if self.sink.key else ""
        self.moved(self.sink.size)
        try:
            found = self.retry_policy.retry(self._attempt, lambda: self.sink.size)
            self.sink.finish()
        except BaseException:
            if self.sink.size < RESUME_FROM:
                self.sink.discard()
            raise
        if self.sink.key:
            self.memory.forget(self.sink.key)
        return found

    def _attempt(self) -> RemoteFile:
        file, link = self.api.find(self.address)
        if file.etag != self.etag or self.sink.size > file.size:
            self._begin_anew(file)
        comparable = self._fetch(file, link) if self.sink.size < file.size else True
        if comparable and self.sink.compare(file.etag) is Match.OTHER:
            self._mismatch()
        return file

    def _begin_anew(self, file: RemoteFile) -> None:
        self._empty()
        self.etag = file.etag
        if self.sink.key and file.size >= RESUME_FROM:
            self.memory.remember(self.sink.key, file.etag)

    def _empty(self) -> None:
        self.moved(-self.sink.size)
        self.sink.empty()

    def _fetch(self, file: RemoteFile, link: str) -> bool:
        """Download the missing bytes. Returns whether the ETag can be compared with the content."""
        start = self.sink.size
        # If the object is replaced meanwhile, its bytes must not be mixed with those downloaded before.
        headers = {"If-Match": f'"{file.etag}"', **({"Range": f"bytes={start}-"} if start else {})}
        with self.links.get(link, headers, f"cannot read {self.address}") as answer:
            if answer.status in (412, 416):
                raise CHANGED.error(f"cannot read {self.address}", "it was replaced while it was read")
            if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self._empty()  # it is sent from the beginning
            for piece in self.links.pieces(answer, link):
                self.sink.append(piece)
                self.moved(len(piece))
            comparable = is_checksum(answer.headers)
        if self.sink.size != file.size:
            received = f"received {self.sink.size} bytes instead of {file.size}"
            raise STORAGE_AWAY.error(str(self.address), received)
        return comparable

    def _mismatch(self) -> None:
        """Retry after a checksum mismatch; the first may be an error of the transfer, the second is one of
        the storage.
        """
        self._empty()
        self.mismatches += 1
        found = "the content does not match its checksum"
        if self.mismatches > 1:
            raise Stalled(Reason.CHECKSUM_MISMATCH, f"{self.address}: {found}, in two attempts")
        raise MISMATCH.error(str(self.address), found)
