"""Logs of stages, read as they are or followed as they are written. After an interruption they are resumed:
no byte and no line is repeated or lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from controller.client.errors import UNREACHABLE
from controller.client.runs.events import ServerSentEvent, read_events
from controller.client.runs.reports import GONE
from controller.client.server import ServerClient
from controller.domain.runs.addresses import RunAddress
from controller.domain.runs.run import RunState


@dataclass(frozen=True)
class RemoteStageLog:
    """The log of one attempt, or of all attempts one after another."""

    run: RunAddress
    stage: str
    attempt: int | None = None

    @property
    def url(self) -> str:
        return f"{self.run.url}/logs"

    @property
    def query(self) -> dict[str, str]:
        return {"stage": self.stage, **({"attempt": str(self.attempt)} if self.attempt is not None else {})}

    @property
    def doing(self) -> str:
        return f"cannot read the log of {self.stage} of {self.run}"


@dataclass(frozen=True)
class LogPiece:
    """Lines, without the end of the last one; if not `ended`, the next piece continues the last line."""

    text: str
    ended: bool = True


@dataclass(frozen=True)
class StageEnd:
    """`exit_code` and `reason` are those of the attempt that was followed, or of the last one."""

    state: RunState
    attempt: int | None
    exit_code: int | None
    reason: str


class LogReader:
    """Reads a log. `go_on` may be called again after it has raised."""

    def __init__(self, server: ServerClient, log: RemoteStageLog, tell: Callable[[bytes], None]) -> None:
        self._server = server
        self._log = log
        self._tell = tell
        self.offset = 0

    def go_on(self) -> None:
        query = {**self._log.query, "offset": str(self.offset)}
        with self._server.stream(self._log.url, self._log.doing, query) as pieces:
            for piece in pieces:
                self.offset += len(piece)
                self._tell(piece)


class LogFollower:
    """Follows a log until it is complete. `go_on` may be called again after it has raised; `received` counts
    the bytes received, comments included.
    """

    def __init__(self, server: ServerClient, log: RemoteStageLog, tell: Callable[[LogPiece], None]) -> None:
        self._server = server
        self._log = log
        self._tell = tell
        self._last = ""
        self.received = 0

    def go_on(self) -> StageEnd:
        headers = {"Accept": "text/event-stream"}
        if self._last:
            headers["Last-Event-ID"] = self._last
        query = {**self._log.query, "follow": "1"}
        with self._server.stream(self._log.url, self._log.doing, query, headers) as pieces:
            for event in read_events(self._counted(pieces)):
                match event.kind:
                    case "end":
                        return self._end(event)
                    case "gone":
                        raise GONE.error(self._log.doing, "the run was deleted meanwhile")
                    case _:
                        self._take(event)
        raise UNREACHABLE.error(self._log.doing, "the server has ended the stream")

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.received += len(piece)
            yield piece

    def _take(self, event: ServerSentEvent) -> None:
        """Pass on an event. Its id is the offset after it: a piece of a line that is too long for one event
        has no line end, so its text is as long as its bytes.
        """
        with self._server.meaning.understood(self._log.url):
            size = int(event.id) - int(self._last or 0)
        self._last = event.id
        self._tell(LogPiece(event.data, ended=size != len(event.data.encode())))

    def _end(self, event: ServerSentEvent) -> StageEnd:
        with self._server.meaning.understood(self._log.url):
            found = json.loads(event.data)
            return StageEnd(
                RunState(found["state"]), found["attempt"], found["exitCode"], str(found["reason"])
            )
