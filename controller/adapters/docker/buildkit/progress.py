"""The progress of a build as lines: the name of each step when it begins, its output, and how it ended. Pure.

The engine sends it as messages of BuildKit, see `StatusResponse` in
https://github.com/moby/buildkit/blob/master/api/services/control/control.proto.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from controller.adapters.docker.buildkit.wire import Fields, WireError, data, decoded, messages, text

TRACE = "moby.buildkit.trace"
_INTERNAL = "[internal] "
_MOST_STEPS = 10_000  # that are remembered
_MOST_OF_LINE = 64 * 1024  # bytes without a line end


class BuildProgress:
    """Reads the messages of one build."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of steps that have been told
        self._ended: set[str] = set()
        self._begun: dict[str, bytes] = {}  # lines without an end yet, by step
        self._last = ""  # the step of the last line

    def lines(self, message: Mapping[str, Any]) -> Iterator[str]:
        """Yield the lines of a message of the engine; none of one that is something else."""
        if message.get("id") != TRACE or not isinstance(message.get("aux"), str):
            return
        try:
            status = decoded(base64.b64decode(message["aux"]))
            for vertex in messages(status, 1):
                yield from self._of_step(vertex)
            for entry in messages(status, 3):
                yield from self._of_output(entry)
        except (WireError, binascii.Error):
            return

    def _of_step(self, vertex: Fields) -> Iterator[str]:
        step, name = text(vertex, 1), text(vertex, 3)
        if name.startswith(_INTERNAL) or len(self._names) >= _MOST_STEPS or step in self._ended:
            return
        cached, begun, ended = bool(vertex.get(4)), bool(vertex.get(5)), bool(vertex.get(6))
        if begun and not cached and step not in self._names:
            yield self._titled(step, name)
        if ended or cached:
            yield from self._rest(step)
            self._ended.add(step)
            if cached:
                self._names[step] = name
                yield f"{name} (cached)"
            self._begun.pop(step, None)

    def _titled(self, step: str, name: str) -> str:
        self._names[step], self._last = name, step
        return name

    def _of_output(self, entry: Fields) -> Iterator[str]:
        step = text(entry, 1)
        *whole, rest = (self._begun.get(step, b"") + data(entry, 4)).split(b"\n")
        if len(rest) > _MOST_OF_LINE:
            whole, rest = [*whole, rest], b""
        if len(self._begun) < _MOST_STEPS or step in self._begun:
            self._begun[step] = rest
        yield from self._told(step, whole)

    def _rest(self, step: str) -> Iterator[str]:
        rest = self._begun.pop(step, b"")
        if rest:
            yield from self._told(step, [rest])

    def _told(self, step: str, lines: list[bytes]) -> Iterator[str]:
        """Steps run side by side: the name of another one than before is told again."""
        if lines and step != self._last and step in self._names:
            yield self._titled(step, self._names[step])
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
