"""`FilesClient`: files to and from boxes over HTTP, for people on any machine. Made by the command line, which shows
what comes of it; knows nothing of configuration or state.

Bytes are streamed, never held. A name never has half a file behind it, here or there. What broke is tried again; what
was killed is gone on with by the next call for the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final, Self

from controller.adapters.files_client.api import Box, File, FilesApi, Listing
from controller.adapters.files_client.download import Download
from controller.adapters.files_client.errors import FILES
from controller.adapters.files_client.links import Links
from controller.adapters.files_client.local import LocalFile, Moved, Partial, usable
from controller.adapters.files_client.memory import Memory, cache_folder
from controller.adapters.files_client.upload import PartUpload, put_whole
from controller.adapters.server_client.patience import PAUSES, Patience
from controller.adapters.server_client.server import Server, new_pool
from controller.domain.addresses import Address
from controller.domain.secret import Secret

PARTS_FROM: Final = 64 * 2**20  # bytes; smaller files go in one piece
PARTS_AT_ONCE: Final = 4


class FilesClient:
    """`authorization` is the whole header, empty for nobody's; `cache` a folder of the user's own. To be closed."""

    def __init__(
        self,
        authorization: Secret,
        cache: Path | None = None,
        pauses: tuple[float, ...] = PAUSES,
        parts_from: int = PARTS_FROM,
    ) -> None:
        cache = cache or cache_folder()
        self._patience = Patience(pauses)
        self._connections = new_pool()
        self._links = Links(self._connections)
        self._api = FilesApi(Server(self._connections, authorization, FILES), self._patience)
        self._uploads = Memory(cache / "uploads.json")
        self._downloads = Memory(cache / "downloads.json")
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
        """End all transfers; what they have moved stays for the next command to go on with."""
        self._patience.stop()

    def boxes(self, app: Address) -> tuple[Box, ...]:
        return self._api.boxes(app)

    def pages(self, group: Address, recursive: bool = False) -> Iterator[Listing]:
        return self._api.pages(group, recursive)

    def find(self, file: Address) -> File:
        """Stalled `FileNotFound`."""
        return self._patience.persist(lambda: self._api.find(file)[0])

    def remove(self, file: Address) -> None:
        """Stalled `FileNotFound`."""
        self._api.remove(file)

    def remove_group(self, group: Address) -> int:
        """How many files are gone. One that is not there is empty."""
        return sum(self._api.remove_group(group))

    def download(self, source: Address, target: Path, moved: Moved) -> File:
        """A file to `target`, which is replaced if it is there. Beside what `FilesApi` and `Links` raise: Stalled
        `LocalFileUnusable`, `ChecksumMismatch`."""
        with Partial.open(target) as partial:
            moved = self._patience.watched(moved)
            return Download(
                self._api, self._links, self._patience, self._downloads, source, partial, moved
            ).run()

    def upload(
        self, source: Path, target: Address, moved: Moved, origin: str = "", version: str = ""
    ) -> File:
        """A file to a box, where one of that name is replaced. `origin` and `version` stand for the file's path and
        stamp where these say nothing. Beside what `FilesApi` and `Links` raise: Stalled `LocalFileUnusable`,
        `LocalFileChanged`, `ChecksumMismatch`."""
        with LocalFile.open(source) as file:
            moved = self._patience.watched(moved)
            if file.size < self._parts_from:
                return put_whole(self._api, self._links, self._patience, file, target, moved)
            return PartUpload(
                self._api,
                self._links,
                self._patience,
                self._uploads,
                self._pool,
                file,
                target,
                moved,
                origin or str(source.absolute()),
                version or file.version,
            ).run()

    def relay(self, source: Address, target: Address, moved: Moved) -> File:
        """From a box to a box by way of this machine, whose folder for temporary files takes the whole file. Each
        byte moves twice."""
        with usable(Path("temporary folder")):
            folder = TemporaryDirectory(prefix="prichal-")
        with folder as name:
            passing = Path(name) / "file"
            found = self.download(source, passing, moved)
            return self.upload(passing, target, moved, source.url, found.etag)
