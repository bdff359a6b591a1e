"""Logs of components' containers as the platform keeps them, past the end of the containers: where they lie, and how
they are read. The daemon writes them (controller/daemon/component_logs.py); the web process and commands on the host
read them here.

    <folder>/<app>/<component>/<container>/<start>.log     text from the byte <start> of the container's log on
                                           <start>.times   when what from a byte on was written
                   _builds/<build>/...                     the same for a build (controller/daemon/build_logs.py), and
                                           ended           once it has ended

`<container>` begins with the time at which the container was made, so names sort by age. Old segments are removed, so
a log begins with the first byte that is left. Names from outside become paths only if they are names of apps and
components; nothing here follows a link.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.domain.names import is_dns_label

PIECE: Final = 2**16  # bytes that are read at once
#: Offset of a byte in the log and the time at which it was written, in Unix seconds.
MARK: Final = struct.Struct("<Qd")
MARKS: Final = 2**16  # of one segment that are read
#: In the place of a component: builds belong to an app, whose components may share them.
BUILDS: Final = "_builds"
ENDED: Final = "ended"
CONTAINER: Final = re.compile(r"[0-9]{14}-[0-9a-zA-Z._-]{1,64}")
_SEGMENT: Final = re.compile(r"([0-9]{16})\.log")


@dataclass(frozen=True)
class LogSegment:
    start: int
    path: Path

    @property
    def size(self) -> int:
        return _size(self.path)

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def times(self) -> Path:
        return self.path.with_suffix(".times")


@dataclass(frozen=True)
class ContainerLog:
    """The log of one container. Offsets count from the first byte that it has written."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def component(self) -> str:
        return self.folder.parent.name

    @property
    def made(self) -> int:
        """When what writes it was made, in milliseconds of Unix time."""
        return int(self.name[:14])

    @property
    def has_ended(self) -> bool:
        """Return True if it is the log of a build that has ended."""
        return (self.folder / ENDED).exists()

    def segments(self) -> tuple[LogSegment, ...]:
        """Return the segments that are left, oldest first."""
        found = ((_SEGMENT.fullmatch(name), name) for name in _names(self.folder))
        return tuple(
            sorted((LogSegment(int(m[1]), self.folder / name) for m, name in found if m), key=_start)
        )

    @property
    def begin(self) -> int:
        """The first byte that is left."""
        segments = self.segments()
        return segments[0].start if segments else 0

    @property
    def end(self) -> int:
        segments = self.segments()
        return segments[-1].end if segments else 0

    def read(self, offset: int, limit: int = PIECE) -> tuple[int, bytes]:
        """Return a piece and its offset, which is higher than `offset` if what was there is not kept any more. The
        piece is empty at the present end."""
        for segment in self.segments():
            if offset < segment.end:
                at = max(offset, segment.start)
                return at, _read(segment.path, at - segment.start, limit)
        return offset, b""

    def since(self, at: float) -> int:
        """Return the offset of what was written at this time or later."""
        found = self.begin
        for segment in reversed(self.segments()):
            earlier = [offset for offset, written in _marks(segment) if written < at]
            later = [offset for offset, written in _marks(segment) if written >= at]
            if earlier:
                return min((offset for offset in later if offset > max(earlier)), default=segment.end)
            found = segment.start
        return found

    def tail(self, lines: int) -> int:
        """Return the offset of the last lines."""
        end = self.end
        if lines <= 0:
            return end
        left = lines
        for segment in reversed(self.segments()):
            at = segment.size
            while at > 0:
                begin = max(0, at - PIECE)
                piece = _read(segment.path, begin, at - begin)
                last = segment.start + at == end and piece.endswith(b"\n")
                place = _line_from_end(piece, left + (1 if last else 0))
                if place is not None:
                    return segment.start + begin + place
                left -= piece.count(b"\n") - (1 if last else 0)
                at = begin
        return self.begin


def _line_from_end(piece: bytes, lines: int) -> int | None:
    """Return where the last lines begin; None if the piece has not so many line ends."""
    place = len(piece)
    for _ in range(lines):
        place = piece.rfind(b"\n", 0, place)
        if place < 0:
            return None
    return place + 1


@dataclass(frozen=True)
class KeptLogs:
    """`folder` has the logs of all apps."""

    folder: Path

    def of(self, app: str, component: str | None = None) -> tuple[ContainerLog, ...]:
        """Return the logs of an app's containers, or of those of one component, oldest first."""
        if not is_dns_label(app) or not (component in (None, BUILDS) or is_dns_label(component or "")):
            return ()
        place = self.folder / app
        components = (component,) if component is not None else tuple(filter(is_dns_label, _names(place)))
        found = (
            ContainerLog(place / each / name)
            for each in components
            for name in _names(place / each)
            if CONTAINER.fullmatch(name)
        )
        return tuple(sorted(found, key=lambda log: (log.name, log.component)))

    def builds(self, app: str) -> tuple[ContainerLog, ...]:
        """Return the logs of an app's builds, oldest first."""
        return self.of(app, BUILDS)

    def apps(self) -> tuple[str, ...]:
        """Return the apps that have logs."""
        return tuple(filter(is_dns_label, _names(self.folder)))

    def chosen(self, app: str, component: str | None, previous: bool) -> ContainerLog | None:
        """Return the log of the newest container, or with `previous` of the one before it."""
        found = self.of(app, component)
        if previous and component is None and found:  # that of the same component
            found = self.of(app, found[-1].component)
        place = 2 if previous else 1
        return found[-place] if len(found) >= place else None


def _start(segment: LogSegment) -> int:
    return segment.start


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, offset: int, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(descriptor, limit, offset)
    finally:
        os.close(descriptor)


def _marks(segment: LogSegment) -> Iterator[tuple[int, float]]:
    content = _read(segment.times, 0, MARKS * MARK.size)
    yield from MARK.iter_unpack(content[: len(content) // MARK.size * MARK.size])


@dataclass
class LogCursor:
    """Reads a log on, and those of the containers that take the place of its own. `component` None: of any component
    of the app; `is_past`: the log is not the newest, so no other one takes its place."""

    kept: KeptLogs
    app: str
    component: str | None
    log: ContainerLog
    offset: int
    is_past: bool = False

    def take(self) -> bytes:
        """Return a piece; empty if there is nothing now."""
        at, piece = self.log.read(self.offset)
        self.offset = at + len(piece)
        return piece

    def has_later(self) -> bool:
        return bool(self._later())

    def go_on(self) -> bool:
        """At the end of a log, go to the next one; return whether there is one."""
        later = self._later()
        if later:
            self.log, self.offset = later[0], 0
        return bool(later)

    def _later(self) -> list[ContainerLog]:
        if self.is_past:
            return []
        return [each for each in self.kept.of(self.app, self.component) if each.name > self.log.name]

    @property
    def id(self) -> str:
        return f"{self.log.component}/{self.log.name}:{self.offset}"

    def resume(self, id: str) -> None:
        """Continue where an earlier cursor with this id was. Raises ValueError."""
        place, _, offset = id.rpartition(":")
        component, _, name = place.partition("/")
        found = [each for each in self.kept.of(self.app, component) if each.name == name]
        if not re.fullmatch("[0-9]{1,16}", offset):
            raise ValueError(f"{id[:40]!r} is not the id of a piece of a log")
        if found and self.component in (None, component):
            self.log, self.offset = found[0], int(offset)
