"""Targets of what other programs send: registries, the engine and its builder, makers of backups. See `targets`."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from controller.adapters import registries
from controller.adapters.docker.buildkit import session
from controller.adapters.docker.buildkit.files import FileTree
from controller.adapters.docker.buildkit.progress import TRACE, BuildProgress
from controller.adapters.docker.job_log import JobLog, LogEntry, entries
from controller.adapters.docker.job_tap import LineCounter
from controller.backup.archive import is_plain_name, unpacked
from controller.backup.restore import member_problem
from controller.domain.apps.spec import Registry, SecretSpec
from controller.domain.apps.versions import MAX_RANGE, is_range, ranked
from controller.domain.errors import ControllerError
from controller.domain.image_names import DIGEST, TAG
from controller.domain.secret import Secret
from controller.tag_patterns import extracted, is_pattern

PASSWORD = "correct-horse-battery-staple"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BLOCK = 512  # bytes of tar
NEXT = b"\n====\n"  # between the answers of a registry


class Played:
    """A connection on which everything has been said already. Implements what is used of a socket."""

    def __init__(self, said: bytes) -> None:
        self._said = [said]
        self.sent = b""

    def recv(self, _most: int) -> bytes:
        return self._said.pop() if self._said else b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def makefile(self, *_: object) -> BytesIO:
        return BytesIO(self.recv(0))

    def shutdown(self, how: int) -> None: ...
    def settimeout(self, seconds: float | None) -> None: ...
    def close(self) -> None: ...


def build_session(data: bytes) -> None:
    """Whatever a builder says ends its session at worst, and shows a secret only to who names it."""
    folders = {session.CONTEXT: FileTree.of_texts({"a/b": b"content", "c": b""})}
    served = session.BuildSession("", "1.41", folders, {"net-password": Secret(PASSWORD)})
    connection: Any = Played(PREFACE + data)
    served.serve(connection)
    assert PASSWORD.encode() not in connection.sent or b"net-password" in data


def build_progress(data: bytes) -> None:
    """A line is a line, and a step that never ends one costs no more than what it says."""
    progress = BuildProgress()
    for piece in (data, data[len(data) // 2 :], data):
        message = {"id": TRACE, "aux": base64.b64encode(piece).decode()}
        assert sum(map(len, progress.lines(message))) <= 40 * len(data) + 100


def job_logs(data: bytes) -> None:
    """The pieces in which a container's output comes do not matter, and a position is read again as it was told."""
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    assert list(entries([data])) == list(entries(pieces))
    whole, cut = LineCounter(), LineCounter()
    whole.feed(data)
    for piece in pieces:
        cut.feed(piece)
    assert (whole.entries, whole.lines, whole.begun) == (cut.entries, cut.lines, cut.begun)

    def ask(_tail: int | None) -> Iterator[LogEntry]:
        yield from entries([data])

    told: Any = ask
    log = JobLog(told, "")
    handed = b"".join(piece for _, piece in log.unread(whole))
    assert len(handed) <= len(data) + 100
    for position, _ in [*log.begun(whole), *log.missing(whole)]:
        JobLog(told, position)


def registry_answers(data: bytes) -> None:
    """What a registry answers, piece by piece, is taken or refused; credentials go to nobody but it and the service
    for tokens that it names; and no field of it breaks out of a request of ours."""
    answers = data.split(NEXT)
    asked: list[tuple[str, Played]] = []

    def connected(addresses: list[str], port: int, _deadline: float) -> Any:
        asked.append((addresses[0], Played(answers.pop(0) if answers else b"")))
        return asked[-1][1]

    registry = Registry("r", "http://registry.example.org", "login")
    login = SecretSpec("login", (("username", Secret("ann")), ("password", Secret(PASSWORD))))
    found = registries.HttpRegistries(True, Path("/nowhere"), resolve=lambda host: [host], timeout=5.0)
    name, known = "registry.example.org/team/net", ((registry, login),)
    with (
        patch.object(registries, "connected", connected),
        patch.object(registries, "resolved_in_time", lambda look_up, _deadline: look_up()),
        suppress(ControllerError),
    ):
        tags = found.tags(name, known)
        assert all(TAG.fullmatch(tag) for tag in tags)
        image = found.image(name, "v1", known)
        assert DIGEST.fullmatch(image.digest)
    for number, (host, connection) in enumerate(asked):
        if not connection.sent:  # it named an address that is none
            continue
        head, _, body = connection.sent.partition(b"\r\n\r\n")
        assert not body
        assert re.fullmatch(rb"(GET|HEAD) [\x21-\x7e]+ HTTP/1\.1", head.split(b"\r\n")[0])
        if b"Authorization: Basic" in head:
            named = NEXT.join(data.split(NEXT)[:number]).decode("latin-1")
            assert host == "registry.example.org" or host in named.lower()


def backup_archives(data: bytes) -> None:
    """A backup of anybody is proved or refused, and each member has a name that leads nowhere else."""
    with suppress(ControllerError), unpacked(BytesIO(_with_checksums(data))) as archive:
        for member in archive.members():
            assert is_plain_name(member.name)
            if not member_problem(member, archive.head):
                assert not member.name.startswith("/")
                assert ".git" not in member.name.split("/")
            member.content.read(100)
        assert archive.size <= len(data)


def _with_checksums(data: bytes) -> bytes:
    """Return a tar whose headers have the checksums that they need: else no changed one would be read."""
    blocks = [bytearray(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
    for block in blocks:
        if len(block) == BLOCK and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def tag_patterns(data: bytes) -> None:
    """Patterns and ranges of developers, at tags of anybody."""
    pattern, *tags = data.decode("utf-8", "replace").split("\n")
    if is_pattern(pattern):
        for tag in tags:
            part = extracted(pattern, tag)
            assert part is None or part in tag
    if is_range(pattern):
        assert len(pattern) <= MAX_RANGE
        chosen = ranked(pattern, tags)
        assert set(chosen) <= set(tags)
        assert ranked(pattern, reversed(tags)) == chosen
