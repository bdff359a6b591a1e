"""`FilesTrial` stands in for `FilesClient` in a dry run (`prichal file … --dry-run`): what only reads is the client's
own; what would change something is looked up, and refused for the reasons that can be known without doing it. Neither
the box nor this machine is changed. What others do meanwhile, and what the storage refuses, is not foreseen."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from controller.client.files.api import GroupMoved, RemoteBox, RemoteFile
from controller.client.files.client import FilesClient
from controller.client.files.local_files import LocalFile, Moved, own_descriptor, usable
from controller.client.server import Authorization
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.storage.addresses import BoxAddress
from controller.domain.storage.keys import FilePath
from controller.domain.units import about_size

_PIECE = 2**20  # bytes that are read at once


class FilesTrial(FilesClient):
    def __init__(self, authorization: Authorization, ca_file: str = "") -> None:
        super().__init__(authorization, ca_file=ca_file)
        self._folders: set[Path] = set()  # that would be made

    def remove(self, file: BoxAddress) -> None:
        self.find(file)

    def remove_group(self, group: BoxAddress) -> int:
        return len(self._below(group))

    def move(self, file: BoxAddress, to: BoxAddress) -> RemoteFile:
        found = self.find(file)
        if self._is_there(to):
            raise _refused(f"cannot move {file}: there is a file {to} already")
        return replace(found, name=to.name)

    def move_group(self, group: BoxAddress, to: BoxAddress, moved: Moved) -> GroupMoved:
        files, there = self._below(group), self._below(to)
        if not files:
            raise Stalled(Reason.FILE_NOT_FOUND, f"cannot move {group}: there is no such group")
        if f"{to.path.text}/".startswith(f"{group.path.text.rstrip('/')}/"):
            raise _refused(f"cannot move {group}: it cannot be moved into itself")
        if there:
            raise _refused(f"cannot move {group}: there is a group {to} already")
        moved(len(files))
        return GroupMoved(len(files), len(files), len(files), 0)

    def make_folder(self, folder: Path) -> None:
        self._folders.add(folder)

    def download(self, source: BoxAddress, target: Path, moved: Moved) -> RemoteFile:
        found = self.find(source)
        folder = target.parent
        if folder not in self._folders and not (folder.is_dir() and os.access(folder, os.W_OK)):
            told = f"{target}: {folder} is not a folder that can be written to"
            raise Stalled(Reason.LOCAL_FILE_UNUSABLE, told)
        moved(found.size)
        return found

    def upload(
        self, source: Path, target: BoxAddress, moved: Moved, origin: str = "", version: str = ""
    ) -> RemoteFile:
        size = _size(source)
        self._require_room(target, size)
        moved(size)
        return RemoteFile(target.name, size, "")

    def relay(self, source: BoxAddress, target: BoxAddress, moved: Moved) -> RemoteFile:
        found = self.find(source)
        self._require_room(target, found.size)
        moved(2 * found.size)
        return replace(found, name=target.name)

    def _below(self, group: BoxAddress) -> list[RemoteFile]:
        return [file for page in self.pages(group, recursive=True) for file in page.files]

    def _is_there(self, file: BoxAddress) -> bool:
        try:
            self.find(file)
        except Stalled as error:
            if error.reason != Reason.FILE_NOT_FOUND:
                raise
            return False
        return True

    def _require_room(self, file: BoxAddress, size: int) -> None:
        """A file that is replaced is counted beside the new one, as for an upload."""
        box = self._box(file, f"cannot write {file}")
        free = box.capacity - box.used - box.pending
        if size > free:
            told = f"cannot write {file}: it has {about_size(size)}, and {about_size(max(0, free))} are free"
            raise Stalled(Reason.BOX_FULL, told)

    def _box(self, place: BoxAddress, doing: str) -> RemoteBox:
        for box in self.boxes(replace(place, box="", path=FilePath("", is_group=True))):
            if box.name == place.box:
                return box
        raise Stalled(Reason.FILE_NOT_FOUND, f"{doing}: {place.app} has no box {place.box}")


def _size(source: Path) -> int:
    """Return the size of a file; standard input is read to its end for it."""
    with usable(source):
        descriptor = own_descriptor(source)
        if descriptor is not None:
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                return sum(len(piece) for piece in iter(lambda: stream.read(_PIECE), b""))
    with LocalFile.open(source) as file:
        return file.size


def _refused(message: str) -> Stalled:
    return Stalled(Reason.REQUEST_REFUSED, message)
