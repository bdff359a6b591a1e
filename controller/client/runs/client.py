"""`RunsClient` starts and follows runs of pipelines over HTTP, for people on any machine. The command line
creates it and shows the results; it knows nothing of configuration or state.

Failed requests are retried. A request that starts a run carries a key, so that it can be repeated if its
response was lost; waiting and following continue after a restart of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

from controller.client.retry import RetryPolicy
from controller.client.runs.logs import LogFollower, LogPiece, LogReader, RemoteStageLog, StageEnd
from controller.client.runs.reports import RUNS, RunReport
from controller.client.server import Authorization, ServerClient, ServerResponse, new_pool
from controller.domain.backoff import Backoff
from controller.domain.errors import Transient
from controller.domain.runs.addresses import PipelineAddress, RunAddress
from controller.domain.runs.run import RunState

#: Some two minutes in all: waiting for a run is retried longer than a single request.
LONG_BACKOFF, LONG_RETRIES = Backoff(0.5, 15.0), 12
WAIT: Final = 30  # seconds that the server holds a request until there is news
PAGE: Final = 100  # runs of one list


class RunsClient:
    """`authorization` is the whole header, empty for anonymous requests, or how to find it for a URL. Must be
    closed. All methods raise errors as `ServerClient.ask`, and Stalled `RunNotFound`, `RunGone`, `NotARunApi`.
    """

    def __init__(
        self,
        authorization: Authorization,
        retry_policy: RetryPolicy | None = None,
        long_retry_policy: RetryPolicy | None = None,
        ca_file: str = "",
        told: Callable[[Transient], None] = lambda error: None,
    ) -> None:
        """`told` is called once for each outage that lasts."""
        self._connections = new_pool(ca_file)
        self._server = ServerClient(self._connections, authorization, RUNS)
        self._retry_policy = retry_policy or RetryPolicy(told=told)
        self._long_retry_policy = long_retry_policy or RetryPolicy(LONG_BACKOFF, LONG_RETRIES, told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._retry_policy.stop()
        self._long_retry_policy.stop()
        self._connections.clear()

    def start(self, pipeline: PipelineAddress, body: Mapping[str, Any], key: str) -> RunReport:
        """Start a run. Another call with the same `key` and body returns the same run."""
        return self._change(pipeline.url, f"cannot start a run of {pipeline}", key, body)

    def retry(self, run: RunAddress, key: str) -> RunReport:
        """Repeat a run, and return the new one. `key` is as for `start`."""
        return self._change(f"{run.url}/retry", f"cannot repeat {run}", key)

    def cancel(self, run: RunAddress) -> RunReport:
        return self._change(f"{run.url}/cancel", f"cannot cancel {run}")

    def list(
        self, pipeline: PipelineAddress, state: RunState | None = None, limit: int = PAGE
    ) -> tuple[tuple[RunAddress, RunReport], ...]:
        """Return the newest runs."""
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
        """Yield the run now and after each change, until it has ended. Quick changes may come together; the
        history has all of them.
        """
        known: str | None = None
        while True:
            answer = self._poll(run, known)
            if answer.status == 304:
                continue
            report = self._report(answer, str(run))
            yield report
            if report.state.terminal:
                return
            known = answer.etag

    def _poll(self, run: RunAddress, known: str | None) -> ServerResponse:
        """Return the run. If `known` is its ETag or "", wait for a change."""
        query = {} if known is None else {"wait": str(WAIT)}
        headers = {"If-None-Match": known} if known else {}
        return self._long_retry_policy.retry(
            lambda: self._server.ask("GET", run.url, f"cannot see {run}", query, headers)
        )

    def log(self, run: RunAddress, stage: str, attempt: int | None, tell: Callable[[bytes], None]) -> None:
        """Read the log as it is, byte by byte."""
        reading = LogReader(self._server, RemoteStageLog(run, stage, attempt), tell)
        self._retry_policy.retry(reading.go_on, lambda: reading.offset)

    def follow(
        self, run: RunAddress, stage: str, attempt: int | None, tell: Callable[[LogPiece], None]
    ) -> StageEnd:
        """Read the log and what is added to it, until it is complete."""
        following = LogFollower(self._server, RemoteStageLog(run, stage, attempt), tell)
        return self._long_retry_policy.retry(following.go_on, lambda: following.received)

    def _change(
        self, url: str, doing: str, key: str = "", body: Mapping[str, Any] | None = None
    ) -> RunReport:
        headers = {"Idempotency-Key": f'"{key}"'} if key else {}
        return self._report(self._ask("POST", url, doing, headers=headers, content=body), url)

    def _ask(
        self, method: str, url: str, doing: str, query: Mapping[str, str] | None = None, **rest: Any
    ) -> ServerResponse:
        return self._retry_policy.retry(lambda: self._server.ask(method, url, doing, query, **rest))

    def _report(self, answer: ServerResponse, what: str) -> RunReport:
        with self._server.meaning.understood(what):
            return RunReport.of(answer.document)
