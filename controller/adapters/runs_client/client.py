"""`RunsClient`: runs of pipelines over HTTP, for people on any machine. Made by the command line, which shows what
comes of it; knows nothing of configuration or state.

What broke is tried again. A request that starts a run carries a key, so that it may be sent again when its answer was
lost; whoever waits or follows outlives a restart of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from controller.adapters.runs_client.logs import Following, LogPiece, Reading, StageEnd, StageLog
from controller.adapters.runs_client.reports import RUNS, RunReport
from controller.adapters.server_client.patience import PAUSES, Patience
from controller.adapters.server_client.server import Answer, Server, new_pool
from controller.domain.run_addresses import PipelineAddress, RunAddress
from controller.domain.runs import RunState
from controller.domain.secret import Secret

#: Seconds; whoever waits for a run has more patience than who wants an answer now: some two minutes.
LONG_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, *(15.0,) * 7)
WAIT: Final = 30  # seconds that the server holds a question for news
PAGE: Final = 100  # runs of one list


class RunsClient:
    """`authorization` is the whole header, empty for nobody's. To be closed. What all of it raises: `Server.ask`, and
    Stalled `RunNotFound`, `RunGone`, `NotARunApi`."""

    def __init__(
        self,
        authorization: Secret,
        pauses: tuple[float, ...] = PAUSES,
        long_pauses: tuple[float, ...] = LONG_PAUSES,
    ) -> None:
        self._connections = new_pool()
        self._server = Server(self._connections, authorization, RUNS)
        self._patience = Patience(pauses)
        self._long_patience = Patience(long_pauses)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.stop()
        self._long_patience.stop()
        self._connections.clear()

    def start(self, pipeline: PipelineAddress, body: Mapping[str, Any], key: str) -> RunReport:
        """The new run; called again with the same `key` and body, the same run."""
        return self._change(pipeline.url, f"cannot start a run of {pipeline}", key, body)

    def retry(self, run: RunAddress, key: str) -> RunReport:
        """The new run. `key` as for `start`."""
        return self._change(f"{run.url}/retry", f"cannot repeat {run}", key)

    def cancel(self, run: RunAddress) -> RunReport:
        return self._change(f"{run.url}/cancel", f"cannot cancel {run}")

    def list(
        self, pipeline: PipelineAddress, state: RunState | None = None, limit: int = PAGE
    ) -> tuple[tuple[RunAddress, RunReport], ...]:
        """The newest ones."""
        found: list[tuple[RunAddress, RunReport]] = []
        after: str | None = ""
        while after is not None and len(found) < limit:
            query = {"limit": str(min(PAGE, limit - len(found)))}
            query |= {"state": state.value} if state else {}
            query |= {"after": after} if after else {}
            answer = self._ask("GET", pipeline.url, f"cannot list the runs of {pipeline}", query)
            with self._server.meaning.understood(str(pipeline)):
                reports = [RunReport.of(document) for document in answer.document["runs"]]
                found += [(pipeline.linked(report.link, report.pipeline), report) for report in reports]
                after = answer.document["next"]
        return tuple(found)

    def find(self, run: RunAddress) -> RunReport:
        return self._report(self._ask("GET", run.url, f"cannot see {run}"), str(run))

    def watch(self, run: RunAddress) -> Iterator[RunReport]:
        """The run as it is, then whenever it has changed, until it is over. States that follow one another quickly may
        come as one; the history has them all."""
        known: str | None = None
        while True:
            answer = self._look(run, known)
            if answer.status == 304:
                continue
            report = self._report(answer, str(run))
            yield report
            if report.state.terminal:
                return
            known = answer.etag

    def _look(self, run: RunAddress, known: str | None) -> Answer:
        """The run; but if something is `known` of it, its ETag or "", as soon as there is news."""
        query = {} if known is None else {"wait": str(WAIT)}
        headers = {"If-None-Match": known} if known else {}
        return self._long_patience.persist(
            lambda: self._server.ask("GET", run.url, f"cannot see {run}", query, headers)
        )

    def log(self, run: RunAddress, stage: str, attempt: int | None, tell: Callable[[bytes], None]) -> None:
        """What there is of it, byte by byte."""
        reading = Reading(self._server, StageLog(run, stage, attempt), tell)
        self._patience.persist(reading.go_on, lambda: reading.offset)

    def follow(
        self, run: RunAddress, stage: str, attempt: int | None, tell: Callable[[LogPiece], None]
    ) -> StageEnd:
        """What there is of it and what is written from now on, until no more will be."""
        following = Following(self._server, StageLog(run, stage, attempt), tell)
        return self._long_patience.persist(following.go_on, lambda: following.received)

    def _change(
        self, url: str, doing: str, key: str = "", body: Mapping[str, Any] | None = None
    ) -> RunReport:
        headers = {"Idempotency-Key": f'"{key}"'} if key else {}
        return self._report(self._ask("POST", url, doing, headers=headers, content=body), url)

    def _ask(
        self, method: str, url: str, doing: str, query: Mapping[str, str] | None = None, **rest: Any
    ) -> Answer:
        return self._patience.persist(lambda: self._server.ask(method, url, doing, query, **rest))

    def _report(self, answer: Answer, what: str) -> RunReport:
        with self._server.meaning.understood(what):
            return RunReport.of(answer.document)
