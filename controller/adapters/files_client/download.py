"""One download: into `<name>.part`, gone on with where it broke off, checked, and given its name at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.adapters.files_client.api import File, FilesApi
from controller.adapters.files_client.checksums import Match, is_checksum
from controller.adapters.files_client.errors import CHANGED, MISMATCH, STORAGE_AWAY
from controller.adapters.files_client.links import Links
from controller.adapters.files_client.local import Moved, Partial
from controller.adapters.files_client.memory import Memory
from controller.adapters.server_client.patience import Patience
from controller.domain.addresses import Address
from controller.domain.errors import Stalled

RESUME_FROM: Final = 8 * 2**20  # bytes; what is smaller is sooner fetched again than remembered


@dataclass
class Download:
    """`etag` is the object that the partial file is the beginning of."""

    api: FilesApi
    links: Links
    patience: Patience
    memory: Memory
    address: Address
    partial: Partial
    moved: Moved
    etag: str = ""
    mismatches: int = 0

    def run(self) -> File:
        self.etag = self.memory.recall(self._key)
        self.moved(self.partial.size)
        try:
            found = self.patience.persist(self._attempt, lambda: self.partial.size)
            self.partial.finish()
        except BaseException:
            if self.partial.size < RESUME_FROM:
                self.partial.discard()
            raise
        self.memory.forget(self._key)
        return found

    @property
    def _key(self) -> str:
        return str(self.partial.path.absolute())

    def _attempt(self) -> File:
        file, link = self.api.find(self.address)
        if file.etag != self.etag or self.partial.size > file.size:
            self._begin_anew(file)
        comparable = self._fetch(file, link) if self.partial.size < file.size else True
        if comparable and self.partial.compare(file.etag) is Match.OTHER:
            self._mismatch()
        return file

    def _begin_anew(self, file: File) -> None:
        self._empty()
        self.etag = file.etag
        if file.size >= RESUME_FROM:
            self.memory.remember(self._key, file.etag)

    def _empty(self) -> None:
        self.moved(-self.partial.size)
        self.partial.empty()

    def _fetch(self, file: File, link: str) -> bool:
        """The bytes that are missing. Whether the ETag is one that content can be compared with."""
        start = self.partial.size
        # Whoever replaces the object meanwhile does not get his bytes mixed with those that are here.
        headers = {"If-Match": f'"{file.etag}"', **({"Range": f"bytes={start}-"} if start else {})}
        with self.links.get(link, headers, f"cannot read {self.address}") as answer:
            if answer.status in (412, 416):
                raise CHANGED.error(f"{self.address} was replaced while it was read")
            if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self._empty()  # it comes from the beginning
            for piece in self.links.pieces(answer, link):
                self.partial.append(piece)
                self.moved(len(piece))
            comparable = is_checksum(answer.headers)
        if self.partial.size != file.size:
            message = f"{self.address}: {self.partial.size} bytes came instead of {file.size}"
            raise STORAGE_AWAY.error(message)
        return comparable

    def _mismatch(self) -> None:
        """Once it may have been the way; what is wrong twice is wrong in the storage."""
        self._empty()
        self.mismatches += 1
        message = f"what came of {self.address} is not what its checksum is of"
        if self.mismatches > 1:
            raise Stalled("ChecksumMismatch", f"{message}; so it was the time before")
        raise MISMATCH.error(message)
