"""gunicorn as a library: the arbiter and workers of the web process. Called by `prichal web`.

gunicorn itself takes over listening sockets from systemd (`LISTEN_FDS`), tells systemd when it is ready, reloads
gracefully on SIGHUP and stops gracefully on SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.asgi import protocol
from gunicorn.asgi.protocol import ASGIProtocol, BodyReceiver
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi
from gunicorn.workers.gasgi import ASGIWorker

from controller import memory
from controller.config import Settings
from controller.store import request_metrics
from controller.store.first_admin import prepare_people
from controller.web.asgi import Application
from controller.web.auth.token import with_token
from controller.web.gateway.body import CallerGone
from controller.web.gateway.sockets import TAKE_OVER
from controller.web.gateway.tunnel import Tunnel
from controller.web.objects.listen import ListenSocket
from controller.web.storage import Connect

KEEP_ALIVE = 10  # seconds that an idle connection is kept; a stopping worker waits for it as long
#: Seconds that calls under way get when a worker stops: the default limit of a call, and some more.
GRACEFUL = 75
HEADER = 30.0  # seconds that the header of a connection's first request may take
STALLED = 60  # seconds without a sign from a worker's event loop, after which it is replaced


FAILED = 1  # exit code: the supervisor of the web process restarts it
PAUSE = 1.0  # seconds before a worker in place of one that could not start

log = logging.getLogger(__name__)


class GunicornLog(Logger):  # type: ignore[misc]
    """gunicorn's log goes where ours goes, in the same format."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class ConnectionProtocol(ASGIProtocol):  # type: ignore[misc]
    """gunicorn's own protocol, which waits for the header of a connection's first request without an end: a client
    that sends nothing, or a byte now and then, would hold connections for ever. Later ones have `KEEP_ALIVE`.

    It would read the frames of WebSockets, too, and hand whole messages to the application. The gateway passes bytes on
    instead: it takes the connection over, after its own handshake with a component."""

    _callback_parser: Any
    _websocket: Tunnel | None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._keepalive_handle = self.worker.loop.call_later(HEADER, self._keepalive_timeout)

    def _is_websocket_upgrade(self, request: Any) -> bool:
        return False

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._build_http_scope(request, sockname, peername)
        if request.may_upgrade():
            scope[TAKE_OVER] = self._take_over
        return scope

    def _take_over(self, tunnel: Tunnel) -> tuple[asyncio.Transport, bytes]:
        """End HTTP on this connection: `tunnel` gets what arrives from now on. Return the transport, and what has
        arrived behind the request."""
        if self._closed:
            raise CallerGone
        early: bytes = self._callback_parser.remaining()
        self._callback_parser, self._websocket = None, tunnel
        self._keepalive = 0  # the connection ends with the application's call
        self._resume_reading()
        return self.transport, early

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._websocket is not None:
            self._websocket.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._websocket is not None:
            self._websocket.resume_writing()

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        if self._websocket is None:  # else gunicorn misses the response to a request that was none
            super()._send_error_response(status, message, extra_headers)


class JoinedBodyReceiver(BodyReceiver):  # type: ignore[misc]
    """gunicorn's own, which hands over what has arrived of a body in one piece: Git sends chunks of 8 KiB, and each
    message to the application costs more than its bytes. What waits is bounded as before, to some 256 KiB."""

    __slots__ = ()

    def _pop_chunk(self) -> Any:
        if len(self._chunks) > 1:
            joined = b"".join(self._chunks)
            self._chunks.clear()
            self._chunks.append(joined)
        return super()._pop_chunk()


protocol.BodyReceiver = JoinedBodyReceiver  # which gunicorn's protocol makes for each request
gasgi.ASGIProtocol = ConnectionProtocol  # which the worker's loop of gunicorn makes for each connection


class GatewayWorker(ASGIWorker):  # type: ignore[misc]
    """gunicorn's own ASGI worker, which tells the application of a stop in time: long polls and event streams would
    otherwise hold a stopping worker until they are cut off."""

    def init_process(self) -> None:
        """Restart a worker that cannot start (because the database is locked, say) after a pause: gunicorn would
        end all other workers, which serve. At the first start there are none."""
        memory.give_back_for_ever()
        try:
            super().init_process()
        except SystemExit as end:
            if end.code != Arbiter.WORKER_BOOT_ERROR or self.age <= self.cfg.workers:
                raise
            time.sleep(PAUSE)
            sys.exit(FAILED)

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self.asgi.begin_stop()


class WorkerArbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter, which starts workers again. It remembers whom it has told to stop: the others are counted."""

    def __init__(self, app: WebServer) -> None:
        self.stopped: set[int] = set()
        super().__init__(app)

    def kill_worker(self, pid: int, sig: int) -> None:
        if sig in (signal.SIGTERM, signal.SIGQUIT):
            self.stopped.add(pid)
        super().kill_worker(pid, sig)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """gunicorn's own codes mean something else here (cli/exits.py), and systemd would leave the process down."""
        super().halt(reason, FAILED if exit_status else 0)


class WebServer(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._connect = connect
        self._door = ListenSocket(settings.storage.listen if settings.storage.backend != "none" else "")
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("pre_fork", lambda _server, _worker: self._door.open())

    def load(self) -> Application:
        return Application(self._settings, self._connect, self._door.socket)


def run(settings: Settings, connect: Connect) -> None:
    """Serve until a signal; exits the process. `connect` makes a client of the object storage."""
    memory.keep_little()
    prepare_people(settings)
    WorkerArbiter(WebServer(with_token(settings), connect)).run()


def options(settings: Settings) -> dict[str, Any]:
    """gunicorn's settings, each that differs from its default for a reason."""
    folder = settings.state / "web"
    return {
        "bind": settings.web.listen,
        "workers": settings.web.workers,
        "worker_class": f"{__name__}.{GatewayWorker.__name__}",
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",
        # A call ends as soon as its caller disconnects: the component's connection is closed with it.
        "asgi_disconnect_grace_period": 0,
        # One parser whatever else is installed: its strictness is tested here.
        "http_parser": "python",
        "limit_request_line": 8190,
        "keepalive": KEEP_ALIVE,
        "graceful_timeout": GRACEFUL,
        "timeout": STALLED,
        "backlog": 1024,
        "proc_name": "prichal-web",
        # Whose X-Forwarded-Proto is believed; nobody may set SCRIPT_NAME and the like.
        "forwarded_allow_ips": ",".join(settings.web.trusted_proxies) or "",
        "forwarder_headers": "",
        # The default opens one below the home folder, which a service has not.
        "control_socket_disable": True,
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108 - never a disk
        "logger_class": f"{__name__}.{GunicornLog.__name__}",
        "loglevel": settings.log_level.lower(),
        "post_fork": lambda _server, _worker: _die_of_signals(),
        "on_starting": lambda _server: request_metrics.clear(folder),
        "child_exit": lambda server, worker: _retire(folder, server, worker.pid),
    }


def _die_of_signals() -> None:
    """A worker inherits the arbiter's handlers, which would swallow a signal that comes before the worker has set its
    own; the arbiter sends SIGTERM once, so a stop right after a start would last until the graceful timeout."""
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _retire(folder: Path, server: WorkerArbiter, process: int) -> None:
    """A worker has ended; that its counts may not be kept must not take the arbiter down."""
    unexpected = process not in server.stopped
    server.stopped.discard(process)
    if unexpected:
        log.error(
            "a web worker ended although nobody stopped it; another one is started", extra={"pid": process}
        )
    try:
        request_metrics.retire(folder, process, unexpected)
    except OSError:
        return
