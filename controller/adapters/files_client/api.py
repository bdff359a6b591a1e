"""The files API, call by call, in types of ours. No bytes of files pass here: it hands out the links that they go
through. What each call raises: `Server.ask`, and Stalled `FileNotFound`, `BoxFull`, `NotAFilesApi`.

Calls are tried again as `patience` says; but `find`, `put_link` and `part_link` are made once: whoever moves the bytes
tries again as a whole, with a fresh link.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from controller.adapters.server_client.patience import Patience
from controller.adapters.server_client.server import SILENCE, Server
from controller.domain.addresses import Address
from controller.domain.storage import Part

_PAGE: Final = 1000  # files of one listing
_LONG: Final = 600.0  # seconds that joining parts or deleting a group may take


@dataclass(frozen=True)
class Box:
    """In bytes, but for `files`."""

    name: str
    capacity: int
    used: int
    pending: int
    files: int


@dataclass(frozen=True)
class File:
    """`name` is relative to what was listed; `modified` as the server tells it, RFC 3339 in UTC, "" if it does not."""

    name: str
    size: int
    etag: str
    modified: str = ""


@dataclass(frozen=True)
class Listing:
    """One page; groups come without a slash."""

    files: tuple[File, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Upload:
    """An upload in parts, with the parts that have arrived. All but the last part have `part_size` bytes."""

    id: str
    part_size: int
    parts: tuple[Part, ...] = ()


class FilesApi:
    def __init__(self, server: Server, patience: Patience) -> None:
        self._server = server
        self._patience = patience

    def boxes(self, app: Address) -> tuple[Box, ...]:
        found = self._ask("GET", app, f"cannot list the boxes of {app.app}")
        with self._understood(app):
            return tuple(
                Box(
                    str(box["name"]),
                    int(box["capacity"]),
                    int(box["used"]),
                    int(box["pending"]),
                    int(box["files"]),
                )
                for box in found["boxes"]
            )

    def pages(self, group: Address, recursive: bool = False) -> Iterator[Listing]:
        """What is in a group; `recursive`: with all groups below, in the files' names. Held page by page."""
        query = {"limit": str(_PAGE), **({"recursive": "1"} if recursive else {})}
        after: str | None = ""
        while after is not None:
            found = self._ask(
                "GET", group, f"cannot list {group}", {**query, **({"after": after} if after else {})}
            )
            with self._understood(group):
                after = found["next"]
                page = Listing(tuple(map(_file, found["files"])), tuple(map(str, found["groups"])))
            yield page

    def find(self, file: Address) -> tuple[File, str]:
        """The file, called by its last segment, and a link to its content."""
        found = self._ask_once("GET", file, f"cannot read {file}")
        with self._understood(file):
            return _file({"name": file.name, **found}), str(found["presigned_get_url"])

    def put_link(self, file: Address, size: int) -> str:
        found = self._ask_once("PUT", file, f"cannot write {file}", {"size": str(size)})
        with self._understood(file):
            return str(found["presigned_put_url"])

    def remove(self, file: Address) -> None:
        self._ask("DELETE", file, f"cannot remove {file}")

    def remove_group(self, group: Address) -> Iterator[int]:
        """How many files are gone, call after call: the server removes a large group in several."""
        more = True
        while more:
            found = self._ask("DELETE", group, f"cannot remove {group}", long=True)
            with self._understood(group):
                deleted, more = int(found["deleted"]), bool(found.get("more"))
            yield deleted

    def begin(self, file: Address, size: int) -> Upload:
        found = self._ask("POST", file, f"cannot write {file}", {"uploads": "", "size": str(size)})
        with self._understood(file):
            return Upload(str(found["upload"]), int(found["part_size"]))

    def arrived(self, file: Address, upload: str) -> Upload:
        found = self._ask("GET", file, f"cannot go on with the upload of {file}", {"upload": upload})
        with self._understood(file):
            parts = (Part(int(p["number"]), int(p["size"]), str(p["etag"])) for p in found["parts"])
            return Upload(upload, int(found["part_size"]), tuple(parts))

    def part_link(self, file: Address, upload: str, number: int) -> str:
        found = self._ask_once("PUT", file, f"cannot write {file}", {"upload": upload, "part": str(number)})
        with self._understood(file):
            return str(found["presigned_put_url"])

    def complete(self, file: Address, upload: str) -> File:
        found = self._ask("POST", file, f"cannot write {file}", {"upload": upload}, long=True)
        with self._understood(file):
            return _file({**found, "name": file.name})

    def abort(self, file: Address, upload: str) -> None:
        self._ask("DELETE", file, f"cannot give up the upload of {file}", {"upload": upload})

    def _understood(self, address: Address) -> AbstractContextManager[None]:
        return self._server.meaning.understood(f"{address.server} about {address}")

    def _ask(
        self,
        method: str,
        address: Address,
        doing: str,
        query: dict[str, str] | None = None,
        long: bool = False,
    ) -> Any:
        return self._patience.persist(lambda: self._ask_once(method, address, doing, query, long))

    def _ask_once(
        self,
        method: str,
        address: Address,
        doing: str,
        query: dict[str, str] | None = None,
        long: bool = False,
    ) -> Any:
        area = {"area": "developer"} if address.developer else {}
        silence = _LONG if long else SILENCE
        asked = {**area, **(query or {})}
        return self._server.ask(method, address.url, doing, asked, silence=silence).document


def _file(found: Any) -> File:
    return File(str(found["name"]), int(found["size"]), str(found["etag"]), str(found.get("modified") or ""))
