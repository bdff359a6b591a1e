"""The files API, call by call, with our types. No bytes of files pass here: the API returns links for them.
Each call raises errors as `ServerClient.ask`, and Stalled `FileNotFound`, `BoxFull`, `NotAFilesApi`.

Calls are retried according to `retry`; but `find`, `put_link` and `part_link` are made once, since the
transfer is retried as a whole, with a new link.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from controller.client.retry import RetryPolicy
from controller.client.server import SILENCE, ServerClient
from controller.domain.storage.addresses import BoxAddress
from controller.domain.storage.box import Part

_PAGE: Final = 1000  # files of one listing
_COUNTING: Final = 1.0  # seconds between requests while the platform counts space
_LONG: Final = 600.0  # seconds that joining parts or deleting a group may take


@dataclass(frozen=True)
class RemoteBox:
    """All numbers are bytes, except `files`."""

    name: str
    capacity: int
    used: int
    pending: int
    files: int


@dataclass(frozen=True)
class RemoteFile:
    """`name` is relative to what was listed; `modified` is in RFC 3339, UTC, or "" if the server does not
    send it.
    """

    name: str
    size: int
    etag: str
    modified: str = ""


@dataclass(frozen=True)
class FilePage:
    """One page; names of groups have no slash."""

    files: tuple[RemoteFile, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class UploadStatus:
    """An upload in parts, with the parts that have arrived. All but the last part have `part_size` bytes."""

    id: str
    part_size: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class GroupMoved:
    """Files of a group that moves: in the last call, so far, in all, and those that cannot."""

    moved: int
    so_far: int
    files: int
    left: int


class FilesApi:
    def __init__(self, server: ServerClient, retry_policy: RetryPolicy) -> None:
        self._server = server
        self._retry_policy = retry_policy

    def boxes(self, app: BoxAddress) -> tuple[RemoteBox, ...]:
        found = self._ask("GET", app, f"cannot list the boxes of {app.app}")
        with self._understood(app):
            return tuple(
                RemoteBox(
                    str(box["name"]),
                    int(box["capacity"]),
                    int(box["used"]),
                    int(box["pending"]),
                    int(box["files"]),
                )
                for box in found["boxes"]
            )

    def pages(self, group: BoxAddress, recursive: bool = False) -> Iterator[FilePage]:
        """Yield the content of a group, page by page; `recursive` includes all groups below, in the files'
        names.
        """
        query = {"limit": str(_PAGE), **({"recursive": "1"} if recursive else {})}
        after: str | None = ""
        while after is not None:
            found = self._ask(
                "GET", group, f"cannot list {group}", {**query, **({"after": after} if after else {})}
            )
            with self._understood(group):
                after = found["next"]
                page = FilePage(tuple(map(_file, found["files"])), tuple(map(str, found["groups"])))
            yield page

    def find(self, file: BoxAddress) -> tuple[RemoteFile, str]:
        """Return the file, named by its last segment, and a link to its content."""
        found = self._ask_once("GET", file, f"cannot read {file}")
        with self._understood(file):
            return _file({"name": file.name, **found}), str(found["presigned_get_url"])

    def put_link(self, file: BoxAddress, size: int) -> str:
        found = self._ask_once("PUT", file, f"cannot write {file}", {"size": str(size)})
        with self._understood(file):
            return str(found["presigned_put_url"])

    def remove(self, file: BoxAddress) -> None:
        self._ask("DELETE", file, f"cannot remove {file}")

    def remove_group(self, group: BoxAddress) -> Iterator[int]:
        """Yield the number of removed files per call: the server removes a large group in several calls."""
        more = True
        while more:
            found = self._ask("DELETE", group, f"cannot remove {group}", long=True)
            with self._understood(group):
                deleted, more = int(found["deleted"]), bool(found.get("more"))
            yield deleted

    def move(self, file: BoxAddress, to: BoxAddress) -> RemoteFile:
        found = self._ask("POST", file, f"cannot move {file}", {"moveTo": to.path.text}, long=True)
        with self._understood(file):
            return _file({**found, "name": to.name})

    def move_group(self, group: BoxAddress, to: BoxAddress) -> Iterator[GroupMoved]:
        """Yield how far the move is, per call, since the server moves a large group in several calls."""
        more = True
        while more:
            found = self._ask("POST", group, f"cannot move {group}", {"moveTo": to.path.text}, long=True)
            with self._understood(group):
                step = GroupMoved(*(int(found[name]) for name in ("moved", "soFar", "files", "left")))
                more = bool(found["more"])
            yield step
            if more and not step.moved:
                self._retry_policy.pause(_COUNTING)

    def begin(self, file: BoxAddress, size: int) -> UploadStatus:
        found = self._ask("POST", file, f"cannot write {file}", {"uploads": "", "size": str(size)})
        with self._understood(file):
            return UploadStatus(str(found["upload"]), int(found["partSize"]))

    def arrived(self, file: BoxAddress, upload: str) -> UploadStatus:
        found = self._ask("GET", file, f"cannot resume the upload of {file}", {"upload": upload})
        with self._understood(file):
            parts = (Part(int(p["number"]), int(p["size"]), str(p["etag"])) for p in found["parts"])
            return UploadStatus(upload, int(found["partSize"]), tuple(parts))

    def part_link(self, file: BoxAddress, upload: str, number: int) -> str:
        found = self._ask_once("PUT", file, f"cannot write {file}", {"upload": upload, "part": str(number)})
        with self._understood(file):
            return str(found["presigned_put_url"])

    def complete(self, file: BoxAddress, upload: str) -> RemoteFile:
        found = self._ask("POST", file, f"cannot write {file}", {"upload": upload}, long=True)
        with self._understood(file):
            return _file({**found, "name": file.name})

    def abort(self, file: BoxAddress, upload: str) -> None:
        self._ask("DELETE", file, f"cannot give up the upload of {file}", {"upload": upload})

    def _understood(self, address: BoxAddress) -> AbstractContextManager[None]:
        return self._server.meaning.understood(f"{address.server} about {address}")

    def _ask(
        self,
        method: str,
        address: BoxAddress,
        doing: str,
        query: dict[str, str] | None = None,
        long: bool = False,
    ) -> Any:
        return self._retry_policy.retry(lambda: self._ask_once(method, address, doing, query, long))

    def _ask_once(
        self,
        method: str,
        address: BoxAddress,
        doing: str,
        query: dict[str, str] | None = None,
        long: bool = False,
    ) -> Any:
        area = {"area": "developer"} if address.developer else {}
        silence = _LONG if long else SILENCE
        asked = {**area, **(query or {})}
        return self._server.ask(method, address.url, doing, asked, silence=silence).document


def _file(found: Any) -> RemoteFile:
    return RemoteFile(
        str(found["name"]), int(found["size"]), str(found["etag"]), str(found.get("modified") or "")
    )
