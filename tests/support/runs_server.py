"""A platform's run API for tests of its client: a real HTTP server in this process, with faults to order. What changes
runs is answered by the views themselves, over a real store; what follows one run, here, from the same documents."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from controller.config import Settings
from controller.domain.names import ComponentName
from controller.domain.runs.run import Run
from controller.store import SqliteStore
from controller.web.api.runs.access import base_of, check_run, etag
from controller.web.api.runs.documents import run_document
from controller.web.api.runs.logs import PIECE, log_event, whole_lines
from controller.web.api.runs.streams import LogRequest
from controller.web.app import create_app
from controller.web.context import ServiceCall
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.faulty_server import FaultyHandler, FaultyServer, Orders
from tests.support.files_server import FilesServer
from tests.support.gateway import APP
from tests.support.runs import RunCaller, RunDriver, all_pipelines, make_pipeline, one_pipeline
from tests.support.stores import open_store

LOOK = 0.005  # seconds between two looks for news


class RunsServer(Orders):
    """`player` is the runner's part. The one server is called "api"; the run API of the pipeline `train` is at
    `demo/train`, that of all pipelines at `demo/pipelines`."""

    def __init__(self, folder: Path, store: SqliteStore) -> None:
        super().__init__()
        self.store = store
        self.player = RunDriver(store, folder / "runs")
        self.files: FilesServer | None = None  # with the files of the same users
        self.users = {"anna": "p:w", "bob": "secret"}
        app = create_app(store, Settings(state=folder), StorageClient(store, lambda access: FakeObjects()))
        services = {service.api.path: service for service in (one_pipeline(), all_pipelines())}
        self.callers = {path: RunCaller(app.test_client(), store, s) for path, s in services.items()}
        self.api = FaultyServer(self, "api", Handler)
        store.runs.publish(APP, (make_pipeline(),))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.server_port}"

    def newest(self) -> Run:
        return self.store.runs.list(APP, limit=1)[0]

    def submit(self, user: str = "anna") -> str:
        """Id of a run."""
        answer = self.callers["train"].as_user(user).submit()
        return str(answer.json["id"])


class Handler(FaultyHandler):
    @property
    def runs(self) -> RunsServer:
        assert isinstance(self.server.orders, RunsServer)
        return self.server.orders

    def right_answer(self) -> None:
        parts = urlsplit(self.path)
        _, app, path, *rest = parts.path.split("/")
        caller, user = self.runs.callers.get(path), self._user()
        if user is None:
            self._refuse(401, "The credentials are missing or wrong.")
        elif path == "files" and self.runs.files is not None:
            query = dict(parse_qsl(parts.query))
            code, document = self.runs.files.ask(self.command, parts.path, query, user)
            self.reply(code, json.dumps(document).encode())
        elif app != APP or caller is None:
            self._refuse(404, f"Nothing is published at {parts.path}.")
        elif self.command == "GET" and len(rest) > 1 and rest[-1] != "runs":
            self._live(caller.as_user(user), rest, dict(parse_qsl(parts.query)))
        else:
            self._by_the_views(caller.as_user(user), "/".join(rest) + f"?{parts.query}")

    def _user(self) -> str | None:
        _, _, value = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(value).decode().partition(":")
        return user if self.runs.users.get(user) == password else None

    def _refuse(self, status: int, detail: str) -> None:
        self.body()
        self.reply(status, json.dumps({"status": status, "detail": detail}).encode())

    def _by_the_views(self, caller: RunCaller, path: str) -> None:
        names = ("Content-Type", "Idempotency-Key")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        with self.runs.lock:
            answer = caller.ask(self.command, path, self.body(), **headers)
        self.reply(answer.status_code, answer.data)

    # --- one run

    def _live(self, caller: RunCaller, rest: list[str], query: dict[str, str]) -> None:
        name = ComponentName(rest.pop(0) if rest[0] != "runs" else "train")
        _, self.id, *part = rest
        self.call = ServiceCall(caller.service, caller.user, f"/demo/{caller.service.api.path}")
        self.pipeline = name
        try:
            run = self._find()
            if not part:
                self._one(run, float(query.get("wait", 0)))
            elif "follow" in query:
                self._follow(_log(run, query))
            else:
                log = _log(run, query).log(run, self.runs.player.folder)
                self.reply(200, log.read(int(query["offset"]), 10**9))
        except RequestRefused as refused:
            self._refuse(refused.problem.kind.status, refused.problem.detail)

    def _find(self) -> Run:
        found = self.runs.store.runs.get(APP, self.id)
        return check_run(found, self.call, self.pipeline, self.id, self.runs.store)

    def _one(self, run: Run, wait: float) -> None:
        known, deadline = self.headers.get("If-None-Match"), time.monotonic() + wait
        while etag(run) == known and time.monotonic() < deadline:
            time.sleep(LOOK)
            run = self._find()
        if etag(run) == known:
            self.reply(304)
            return
        self.reply(
            200, json.dumps(run_document(run, base_of(self.call, run.name))).encode(), {"ETag": etag(run)}
        )

    def _follow(self, log: LogRequest) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.sent = 0
        offset = int(self.headers.get("Last-Event-ID", 0))
        while not self.close_connection:
            try:
                run = self._find()
            except RequestRefused:
                self._chunk(b"event: gone\ndata: {}\n\n")
                self._chunk(b"")
                return
            over, stage = log.over(run), log.log(run, self.runs.player.folder)
            data = stage.read(offset)
            length = len(data) if over and len(data) < PIECE else whole_lines(data, len(data) == PIECE)
            if length:
                offset += length
                self._chunk(log_event(data[:length], offset))
            elif over:
                self._chunk(_end(run, log))
                self._chunk(b"")
                return
            else:
                time.sleep(LOOK)

    def _chunk(self, data: bytes) -> None:
        """The connection breaks within the chunk that a fault was ordered for."""
        left = None if self.cut_after is None else self.cut_after - self.sent
        self.sent += len(data)
        whole = b"%x\r\n%b\r\n" % (len(data), data)
        if left is not None and left < len(data):
            self.wfile.write(whole[: len(whole) - 2 - len(data) + left])
            self.reset()
            return
        self.wfile.write(whole)


def _log(run: Run, query: dict[str, str]) -> LogRequest:
    if query["stage"] not in [stage.name for stage in run.stages]:
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, "The run has no such stage."))
    return LogRequest(query["stage"], int(query["attempt"]) if "attempt" in query else None)


def _end(run: Run, log: LogRequest) -> bytes:
    stage = run.stage(log.stage)
    attempt = stage.attempts[log.attempt - 1] if log.attempt else stage.attempt
    document = {
        "state": stage.state,
        "attempt": attempt and attempt.number,
        "exitCode": attempt and attempt.exit_code,
        "reason": (attempt.reason if attempt else "") or stage.reason,
    }
    return f"id: end\nevent: end\ndata: {json.dumps(document)}\n\n".encode()


@contextmanager
def runs_server(folder: Path) -> Iterator[RunsServer]:
    with closing(open_store(folder / "state.db")) as store:
        runs = RunsServer(folder, store)
        with runs.api.serving():
            yield runs
