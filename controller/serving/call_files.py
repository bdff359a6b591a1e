"""Transfers files over the connection of the call itself: the container needs neither a folder of the host
nor access to the storage. The bytes of FILE inputs follow the JSON of a request, those of FILE outputs the
JSON of a reply, in order. The header field ``X-Prichal-Files`` has the lengths: that of the JSON, then the
index of each variable in ``inputs`` or ``outputs`` with the length of its file: ``X-Prichal-Files: 312;
0=10485760; 2=77``. It is the gateway's to send; a request that has it, without any file, too, gets FILE
outputs back in the same form. Their ``data`` are then the files' names."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

from . import problems
from .files import check_key
from .http1 import ClientDisconnected, HttpRequest
from .problems import ServingProblem
from .scratch import CallFolder
from .texts import Text

HEADER = "X-Prichal-Files"


class CallFiles:
    """The files of one call; inputs are taken in the order of the request."""

    def __init__(self, request: HttpRequest, folder: CallFolder) -> None:
        self._request = request
        self._folder = folder
        self._coming = list(request.files or ())
        self.outgoing: list[tuple[BinaryIO, int]] = []
        self._places: list[int] = []

    def fetch(self, index: int, key: str) -> str:
        """Write the bytes that came for an input to the call's folder, under the name in its key. Raises
        ValueError (not brought), Problem (no space, too slow), Disconnected."""
        if not self._coming or self._coming[0][0] != index:
            raise ValueError(Text("this file was not brought along; is the input's datatype FILE?"))
        check_key(key)
        size = self._coming.pop(0)[1]
        try:
            folder = os.path.join(self._folder.path(), str(index))
            os.mkdir(folder)
            path = os.path.join(folder, key.rpartition("/")[2])
            with open(path, "wb", buffering=0) as file:
                self._copy(size, file)
        except OSError as error:
            raise _disk_full(error) from error
        return path

    def _copy(self, size: int, file: BinaryIO) -> None:
        while size:
            try:
                piece = memoryview(self._request.read(size))
            except OSError as error:
                raise ClientDisconnected from error
            size -= len(piece)
            while piece:
                piece = piece[file.write(piece) :]

    def store(self, path: str, index: int, name: str, call_id: str) -> str:
        """Keep the file at a local path open for the reply; gives its name."""
        if not os.path.isfile(path):
            raise ValueError(Text("there is no file at {path!r}", path=path))
        file = self._folder.keep(open(path, "rb"))  # noqa: SIM115 -- closed with the folder
        self.outgoing.append((file, os.fstat(file.fileno()).st_size))
        self._places.append(index)
        return os.path.basename(path)

    def headers(self, length: int) -> list[tuple[str, str]]:
        """Return the header fields that describe the files of a reply with that many bytes of JSON."""
        if not self.outgoing:
            return []
        ends = [f"{index}={size}" for index, (_, size) in zip(self._places, self.outgoing)]
        return [(HEADER, "; ".join([str(length), *ends]))]


def _disk_full(error: OSError) -> ServingProblem:
    if error.errno == errno.ENAMETOOLONG:
        return ServingProblem(
            problems.INVALID, Text("the name of a file is longer than the container's file system takes")
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    detail = Text("the container cannot keep the call's files in its TMPDIR: {reason}", reason=reason)
    return ServingProblem(problems.DISK_FULL, detail)
