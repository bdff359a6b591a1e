"""`FilesClient` copies files to and from boxes over HTTP, for people on any machine. The command line creates
it and shows the results; it knows nothing of configuration or state.

Bytes are streamed, not kept in memory. A file name never stands for half a file, on either side. Failed
transfers are retried; interrupted ones are resumed by the next call for the same file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final, Self

from controller.client.files.api import FilePage, FilesApi, GroupMoved, RemoteBox, RemoteFile
from controller.client.files.download import Download
from controller.client.files.errors import FILES
from controller.client.files.links import LinkTransport
from controller.client.files.local_files import LocalFile, Moved, opened, own_descriptor, usable
from controller.client.files.resume import ResumeState, cache_folder
from controller.client.files.upload import PartUpload, put_whole
from controller.client.retry import RetryPolicy
from controller.client.server import Authorization, ServerClient, new_pool
from controller.domain.storage.addresses import BoxAddress

PARTS_FROM: Final = 64 * 2**20  # bytes; smaller files are sent in one piece
PARTS_AT_ONCE: Final = 4


class FilesClient:
    """`authorization` is the whole header, empty for anonymous requests, or how to find it for a URL; `cache` is a
    folder of the user. Must be closed.
    """

    def __init__(
        self,
        authorization: Authorization,
        cache: Path | None = None,
        retry_policy: RetryPolicy | None = None,
        parts_from: int = PARTS_FROM,
        ca_file: str = "",
    ) -> None:
        cache = cache or cache_folder()
        self._retry_policy = retry_policy or RetryPolicy()
        self._connections = new_pool(ca_file)
        self._links = LinkTransport(self._connections)
        self._api = FilesApi(ServerClient(self._connections, authorization, FILES), self._retry_policy)
        self._uploads = ResumeState(cache / "uploads.json")
        self._downloads = ResumeState(cache / "downloads.json")
        self._pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="part")
        self._parts_from = parts_from

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop()
        self._pool.shutdown(cancel_futures=True)
        self._connections.clear()

    def stop(self) -> None:
        """End all transfers; the next command can resume them."""
        self._retry_policy.stop()

    def boxes(self, app: BoxAddress) -> tuple[RemoteBox, ...]:
        return self._api.boxes(app)

    def pages(self, group: BoxAddress, recursive: bool = False) -> Iterator[FilePage]:
        return self._api.pages(group, recursive)

    def find(self, file: BoxAddress) -> RemoteFile:
        """Return a file. Raises Stalled `FileNotFound`."""
        return self._retry_policy.retry(lambda: self._api.find(file)[0])

    def remove(self, file: BoxAddress) -> None:
        """Remove a file. Raises Stalled `FileNotFound`."""
        self._api.remove(file)

    def remove_group(self, group: BoxAddress) -> int:
        """Remove a group, and return the number of removed files. A missing group is empty."""
        return sum(self._api.remove_group(group))

    def move(self, file: BoxAddress, to: BoxAddress) -> RemoteFile:
        """Move a file within its box. Raises Stalled `FileNotFound`, `BoxFull`."""
        return self._api.move(file, to)

    def move_group(self, group: BoxAddress, to: BoxAddress, moved: Moved) -> GroupMoved:
        """Move a group within its box. `moved` is told the files of each step. Raises Stalled `FileNotFound`,
        `BoxFull`; the same call continues the move. `left` is that of the last step.
        """
        step = None
        for step in self._api.move_group(group, to):
            moved(step.moved)
        assert step is not None
        return step

    def make_folder(self, folder: Path) -> None:
        """Make a folder of this machine for downloads. Raises Stalled `LocalFileUnusable`."""
        with usable(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def download(self, source: BoxAddress, target: Path, moved: Moved) -> RemoteFile:
        """Download a file to `target`, replacing a file or writing to a device or pipe. Raises errors as
        `FilesApi` and `LinkTransport`, and Stalled `LocalFileUnusable`, `ChecksumMismatch`.
        """
        with opened(target) as sink:
            moved = self._retry_policy.watched(moved)
            return Download(
                self._api, self._links, self._retry_policy, self._downloads, source, sink, moved
            ).run()

    def upload(
        self, source: Path, target: BoxAddress, moved: Moved, origin: str = "", version: str = ""
    ) -> RemoteFile:
        """Upload a file, or the content of a descriptor of this process, replacing the file in the box.
        `origin` and `version` replace the file's path and stamp if these mean nothing. Raises errors as
        `FilesApi` and `LinkTransport`, and Stalled `LocalFileUnusable`, `LocalFileChanged`, `ChecksumMismatch`.
        """
        with usable(source):
            descriptor = own_descriptor(source)
        if descriptor is not None:  # it may be a pipe, but its length must be known
            with self._spooled() as path:
                with usable(path), os.fdopen(os.dup(descriptor), "rb") as stream, path.open("wb") as file:
                    shutil.copyfileobj(stream, file)
                return self.upload(path, target, moved)
        with LocalFile.open(source) as file:
            moved = self._retry_policy.watched(moved)
            if file.size < self._parts_from:
                return put_whole(self._api, self._links, self._retry_policy, file, target, moved)
            return PartUpload(
                self._api,
                self._links,
                self._retry_policy,
                self._uploads,
                self._pool,
                file,
                target,
                moved,
                origin or str(source.absolute()),
                version or file.version,
            ).run()

    def relay(self, source: BoxAddress, target: BoxAddress, moved: Moved) -> RemoteFile:
        """Copy between boxes by way of this machine, whose temporary folder must have space for the whole
        file. Each byte moves twice.
        """
        with self._spooled() as path:
            found = self.download(source, path, moved)
            return self.upload(path, target, moved, source.url, found.etag)

    @staticmethod
    @contextmanager
    def _spooled() -> Iterator[Path]:
        """Yield the path of a temporary file to create, which is removed at the end."""
        with usable(Path("temporary folder")):
            folder = TemporaryDirectory(prefix="prichal-")
        with folder as name:
            yield Path(name) / "file"
